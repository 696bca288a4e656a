"""Example: JupyterHub with chp-gevent as its proxy.

Only the settings that concern the proxy. Choose one of the two ways below.
"""

import os

c = get_config()  # noqa: F821  (JupyterHub defines it)

# Where users come in.
c.JupyterHub.bind_url = "http://:8000"

# --- Way 1: JupyterHub starts and stops the proxy -------------------------------------------
#
# JupyterHub adds --ip, --port, --api-ip, --api-port, --error-target and the TLS options itself
# and hands over the token. (The command is also installed as configurable-http-proxy, which is
# JupyterHub's default: without this line it is found if Node's is not before it in the PATH.)

c.ConfigurableHTTPProxy.command = ["chp-gevent", "--workers", "4"]

# --- Way 2: the proxy is a service of its own -----------------------------------------------
#
# It then serves on while JupyterHub is restarted or upgraded: conf/chp-gevent.service. Both
# sides need the same token in CONFIGPROXY_AUTH_TOKEN.

if os.environ.get("CHP_GEVENT_IS_A_SERVICE"):
    c.ConfigurableHTTPProxy.should_start = False
    c.ConfigurableHTTPProxy.api_url = "http://127.0.0.1:8001"
    # Users' servers and their routes outlive a restart of JupyterHub.
    c.JupyterHub.cleanup_servers = False
