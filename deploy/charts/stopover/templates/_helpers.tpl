{{- define "stopover.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- /* 52 characters, so that the names of pods and their hash label stay below 63. */}}
{{- define "stopover.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" }}
{{- else if contains (include "stopover.name" .) .Release.Name }}
{{- .Release.Name | trunc 52 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "stopover.name" .) | trunc 52 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "stopover.selectorLabels" -}}
app.kubernetes.io/name: {{ include "stopover.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "stopover.labels" -}}
{{ include "stopover.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/component: exchange-manager
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{- /* The label job of the metrics: another one for each release, and one that the alerts select. */}}
{{- define "stopover.job" -}}
{{- $name := include "stopover.fullname" . }}
{{- default (contains "stopover" $name | ternary $name (printf "stopover-%s" $name)) .Values.serviceMonitor.job }}
{{- end }}

{{- define "stopover.serviceAccountName" -}}
{{- default (ternary (include "stopover.fullname" .) "default" .Values.serviceAccount.create) .Values.serviceAccount.name }}
{{- end }}

{{- define "stopover.image" -}}
{{- if .Values.image.digest }}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest }}
{{- else }}
{{- printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) }}
{{- end }}
{{- end }}

{{- define "stopover.scheme" -}}
{{- ternary "https" "http" (ne .Values.tls.existingSecret "") }}
{{- end }}

{{- /* Bytes of a quantity such as 8Gi, 500M or 1073741824. */}}
{{- define "stopover.bytes" -}}
{{- $units := dict "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776 "k" 1000 "M" 1000000 "G" 1000000000 "T" 1000000000000 "" 1 }}
{{- $quantity := toString . }}
{{- $number := regexFind "^[0-9.]+" $quantity }}
{{- $unit := trimPrefix $number $quantity }}
{{- if not (hasKey $units $unit) }}
{{- fail (printf "resources.limits.memory: %q is no size that this chart can halve: set memoryBudget" $quantity) }}
{{- end }}
{{- mulf (float64 $number) (get $units $unit) | int64 }}
{{- end }}

{{- define "stopover.memoryBudget" -}}
{{- if .Values.memoryBudget }}
{{- .Values.memoryBudget }}
{{- else if dig "limits" "memory" "" .Values.resources }}
{{- div (include "stopover.bytes" .Values.resources.limits.memory | int64) 2 }}
{{- end }}
{{- end }}

{{- /* The names of the Service that a client without a token may use. */}}
{{- define "stopover.allowedHosts" -}}
{{- $name := include "stopover.fullname" . }}
{{- $hosts := list }}
{{- range $replica := until (int .Values.replicas) }}
{{- $pod := printf "%s-%d.%s" $name $replica $name }}
{{- $hosts = concat $hosts (list $pod (printf "%s.%s" $pod $.Release.Namespace) (printf "%s.%s.svc" $pod $.Release.Namespace) (printf "%s.%s.svc.%s" $pod $.Release.Namespace $.Values.clusterDomain)) }}
{{- end }}
{{- join "," (concat $hosts .Values.allowedHosts) }}
{{- end }}
