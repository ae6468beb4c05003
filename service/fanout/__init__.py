"""The breadth of one request, spread over the nodes of a Ray cluster."""
