"""What a deployment of so many cameras costs, and which part is full first."""
