# Trino with the plugin. The folder's name must be the same on every node of a cluster.
#
#   docker build -t stopover-plugin -f deploy/images/plugin.Dockerfile .
#   docker build -t trino-with-stopover --build-arg TRINO=480 -f deploy/images/trino.Dockerfile .
#
# Trino's configuration is not part of it: mount etc/exchange-manager.properties and
# retry-policy=TASK in etc/config.properties (docs/trino.md).

# 476 to 483; a digest may follow.
ARG TRINO=480@sha256:1565e8cac299a32dd9177a4da2d748da4ceb9f1560a9c409d1d18fd72ea5253e
ARG PLUGIN=stopover-plugin

FROM ${PLUGIN} AS plugin

FROM docker.io/trinodb/trino:${TRINO}
COPY --from=plugin /opt/stopover /usr/lib/trino/plugin/stopover
