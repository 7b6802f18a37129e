"""The server behind Exec's, Attach's and PortForward's URLs: WebSocket and SPDY/3.1 on one HTTP/1.1 listener."""
