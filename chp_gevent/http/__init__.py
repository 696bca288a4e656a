"""HTTP/1.1 over gevent, for whoever has a WSGI application: no word of proxies or routes here."""
