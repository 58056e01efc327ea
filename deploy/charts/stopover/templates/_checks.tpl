{{- /* What no schema can say: values that contradict each other, each with the remedy. */}}
{{- define "stopover.checks" -}}
{{- $inEnvironment := false }}
{{- range .Values.env }}
{{- if hasPrefix "STOPOVER_BASE_DIRECTORIES" .name }}{{ $inEnvironment = true }}{{ end }}
{{- end }}
{{- if not (or (contains "[[base_directory]]" .Values.config) $inEnvironment .Values.envFrom) }}
{{- fail "config has no [[base_directory]]: name at least one place that all daemons reach, such as a bucket. The default, a folder of the container, is read-only and each pod would have its own." }}
{{- end }}
{{- if not (or .Values.tokens.existingSecret .Values.allowRemoteWithoutToken) }}
{{- fail "tokens.existingSecret is empty: name a Secret with tokens, or set allowRemoteWithoutToken=true where the network decides who reaches the daemons" }}
{{- end }}
{{- if and .Values.tls.clientCertificates (not .Values.tls.existingSecret) }}
{{- fail "tls.clientCertificates needs tls.existingSecret, with ca.crt in it" }}
{{- end }}
{{- if and .Values.serviceMonitor.enabled (or .Values.tokens.existingSecret .Values.adminTokens.existingSecret) (not .Values.serviceMonitor.authorization) }}
{{- fail "serviceMonitor.authorization is empty: /metrics needs a token where tokens are configured" }}
{{- end }}
{{- end }}
