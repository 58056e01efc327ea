# Only the plugin, in /opt/stopover, with a command that copies it: an init container puts it into a
# volume of a Trino that is not built anew (deploy/trino-values-sidecar.yaml).
#
#   docker build -t stopover-plugin -f deploy/images/plugin.Dockerfile .
#   docker run --rm -v plugin:/plugin stopover-plugin /plugin
#
# Java is the same on every architecture: build it once, on the builder's own.

FROM --platform=$BUILDPLATFORM docker.io/library/maven:3.9-eclipse-temurin-25 AS build
WORKDIR /build
COPY trino-plugin trino-plugin
RUN mvn -B -ntp -f trino-plugin -pl stopover -am -DskipTests package \
 && rm -f trino-plugin/stopover/target/trino-stopover-*.zip \
 && cp -r trino-plugin/stopover/target/trino-stopover-*/ /plugin

FROM docker.io/library/busybox:1.37
COPY --from=build /plugin /opt/stopover
COPY --chmod=0755 deploy/images/copy-plugin /usr/local/bin/copy-plugin
# A number, so that Kubernetes can verify that it is not root.
USER 10001:10001
ENTRYPOINT ["copy-plugin"]
CMD ["/plugin"]
