# Only the plugin, in /opt/stopover, with a command that copies it: an init container puts it into a
# volume of a Trino that is not built anew (deploy/trino-values-sidecar.yaml).
#
#   docker build -t stopover-plugin -f deploy/images/plugin.Dockerfile .
#   docker run --rm -v plugin:/plugin stopover-plugin /plugin
#
# Java is the same on every architecture: build it once, on the builder's own. Digests are those of
# the index of all architectures, as in ../../Dockerfile.

FROM --platform=$BUILDPLATFORM docker.io/library/maven:3.9-eclipse-temurin-25@sha256:d67198007bb4441b07d45587320f83154de80ece3608f80408ef14c6ea847753 AS build
WORKDIR /build
COPY trino-plugin trino-plugin
RUN mvn -B -ntp -f trino-plugin -pl stopover -am -DskipTests package \
 && rm -f trino-plugin/stopover/target/trino-stopover-*.zip \
 && cp -r trino-plugin/stopover/target/trino-stopover-*/ /plugin

FROM docker.io/library/busybox:1.37@sha256:9db7b59979c38555a39def84a31fb98b5296952f9e3afd4f6f11f05b07adfab0
COPY --from=build /plugin /opt/stopover
COPY --chmod=0755 deploy/images/copy-plugin /usr/local/bin/copy-plugin
# A number, so that Kubernetes can verify that it is not root.
USER 10001:10001
ENTRYPOINT ["copy-plugin"]
CMD ["/plugin"]
