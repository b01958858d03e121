{{/* Name of the VectorSphereCluster. The definition has the same rule; here it also tells how to get around a release's name. */}}
{{- define "vectorsphere-cluster.name" -}}
{{- $name := .Values.name | default .Release.Name -}}
{{- if or (gt (len $name) 40) (not (regexMatch "^[a-z]([-a-z0-9]*[a-z0-9])?$" $name)) -}}
{{- fail (printf "%q cannot name a cluster: at most 40 characters, a letter first, then a-z, 0-9 and -. Set `name`, or name the release differently" $name) -}}
{{- end -}}
{{- $name -}}
{{- end }}

{{- define "vectorsphere-cluster.labels" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: vectorsphere
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- with .Values.labels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/*
The spec is the values, without what belongs to the chart and without what is empty. So a new field of the custom resource
needs no line here: values.schema.json is made of the definition and knows it.
*/}}
{{- define "vectorsphere-cluster.spec" -}}
{{- $etcd := deepCopy (.Values.etcd | default dict) -}}
{{- if and (hasKey $etcd "managed") (hasKey $etcd "external") -}}
{{- fail "etcd: set `managed` or `external`, not both" -}}
{{- end -}}
{{- if not (or (hasKey $etcd "managed") (hasKey $etcd "external")) -}}
{{- $_ := set $etcd "managed" dict -}}
{{- end -}}
{{- $spec := dict "version" (.Values.version | default .Chart.AppVersion) "etcd" $etcd -}}
{{- range $field, $value := omit .Values "name" "labels" "annotations" "global" "version" "etcd" -}}
{{- if $value -}}
{{- $_ := set $spec $field $value -}}
{{- end -}}
{{- end -}}
{{- toYaml $spec -}}
{{- end }}
