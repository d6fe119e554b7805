"""One file per noun; a route reads the request, asks the registry and shows the answer."""
