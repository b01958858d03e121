{{/* Name of everything in the namespace of the release. */}}
{{- define "vectorsphere-operator.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride -}}
{{- else if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 63 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 63 | trimSuffix "-" -}}
{{- end -}}
{{- end }}

{{/* Name of what has no namespace: releases of the same name in two namespaces must not meet. */}}
{{- define "vectorsphere-operator.clusterName" -}}
{{- printf "%s:%s" .Release.Namespace (include "vectorsphere-operator.fullname" .) -}}
{{- end }}

{{- define "vectorsphere-operator.selectorLabels" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "vectorsphere-operator.labels" -}}
{{ include "vectorsphere-operator.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: vectorsphere
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- with .Values.labels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "vectorsphere-operator.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- .Values.serviceAccount.name | default (include "vectorsphere-operator.fullname" .) -}}
{{- else -}}
{{- required "serviceAccount.name: must name an existing ServiceAccount when serviceAccount.create is false" .Values.serviceAccount.name -}}
{{- end -}}
{{- end }}

{{- define "vectorsphere-operator.image" -}}
{{- with .Values.image -}}
{{- if and .tag .digest -}}
{{- fail "image: set tag or digest, not both" -}}
{{- end -}}
{{- if .digest -}}
{{- printf "%s@%s" .repository .digest -}}
{{- else -}}
{{- printf "%s:%s" .repository (.tag | default $.Chart.AppVersion) -}}
{{- end -}}
{{- end -}}
{{- end }}

{{/* Whom roles are bound to. */}}
{{- define "vectorsphere-operator.subject" -}}
- kind: ServiceAccount
  name: {{ include "vectorsphere-operator.serviceAccountName" . }}
  namespace: {{ .Release.Namespace }}
{{- end }}
