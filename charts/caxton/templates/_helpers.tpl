{{/* The name of the chart's objects: the release's, with the chart's unless it is in it. */}}
{{- define "caxton.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" }}
{{- else }}
{{- $name := default .Chart.Name .Values.nameOverride }}
{{- if contains $name .Release.Name }}
{{- .Release.Name | trunc 40 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" }}
{{- end }}
{{- end }}
{{- end }}

{{/* By what the pods are found; it must never change while a release lives. */}}
{{- define "caxton.selector" -}}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "caxton.labels" -}}
{{ include "caxton.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "caxton.image" -}}
{{- with .Values.image }}
{{- if .digest }}{{ printf "%s@%s" .repository .digest }}
{{- else }}{{ printf "%s:%s" .repository (default $.Chart.AppVersion .tag) }}
{{- end }}
{{- end }}
{{- end }}

{{/* The headless service by which nodes know each other. */}}
{{- define "caxton.peers" -}}
{{ include "caxton.fullname" . }}-peers
{{- end }}

{{- define "caxton.secretName" -}}
{{ default (printf "%s-cluster" (include "caxton.fullname" .)) .Values.cluster.existingSecret }}
{{- end }}

{{- define "caxton.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "caxton.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- define "caxton.metricsSecret" -}}
{{ default (printf "%s-metrics" (include "caxton.fullname" .)) .Values.monitoring.secretName }}
{{- end }}

{{/* Every name by which a client may reach any node. */}}
{{- define "caxton.serviceNames" -}}
{{- $name := include "caxton.fullname" . }}
{{- $space := .Release.Namespace }}
{{- $domain := .Values.cluster.domain }}
{{- printf "%s,%s.%s,%s.%s.svc,%s.%s.svc.%s" $name $name $space $name $space $name $space $domain }}
{{- end }}
