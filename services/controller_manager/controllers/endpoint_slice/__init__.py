"""Says in EndpointSlices which pods serve a Service. `desired` is shared with the older Endpoints."""
