"""HTTP/1.1 over gevent: the server, and the wire that the proxy's other side speaks too."""
