"""People who walk past cameras and do not exist: to see how well the tracker follows them."""
