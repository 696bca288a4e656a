# The command, and nothing else: docs/how-to/containers.md
FROM python:3.13-slim AS build
COPY setup.py pyproject.toml README.md LICENSE /source/
COPY chp_gevent /source/chp_gevent
RUN python -m venv /opt/chp-gevent && /opt/chp-gevent/bin/pip install --no-cache-dir '/source[acme,redis]'

FROM python:3.13-slim
COPY --from=build /opt/chp-gevent /opt/chp-gevent
ENV PATH="/opt/chp-gevent/bin:$PATH" PYTHONDONTWRITEBYTECODE=1
# Also the account of CHP's image.
USER 65534:65534
EXPOSE 8000 8001
ENTRYPOINT ["chp-gevent"]
