{{/* Names and labels that several objects share. */}}

{{- define "fedtune.name" -}}
{{- default (printf "%s-operator" .Chart.Name) .Values.nameOverride | trunc 40 | trimSuffix "-" }}
{{- end }}

{{- define "fedtune.fullname" -}}
{{- if contains .Chart.Name .Release.Name }}
{{- printf "%s-operator" .Release.Name | trunc 63 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "fedtune.name" .) | trunc 63 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{/* Names of objects that belong to no namespace: two releases of one name must not share them. */}}
{{- define "fedtune.clusterName" -}}
{{- printf "%s-%s" .Release.Namespace (include "fedtune.fullname" .) | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* The trainers' network policies know the operator by its name label. */}}
{{- define "fedtune.selectorLabels" -}}
app.kubernetes.io/name: fedtune-operator
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "fedtune.labels" -}}
{{ include "fedtune.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "fedtune.serviceAccount" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "fedtune.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- required "serviceAccount.create is false; set serviceAccount.name to the account that is there" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{/* An image with its tag: a dict of image and context. */}}
{{- define "fedtune.image" -}}
{{- printf "%s:%s" .image.repository (default .context.Chart.AppVersion .image.tag) }}
{{- end }}

{{/* An object's entries as key=value, comma between them. */}}
{{- define "fedtune.pairs" -}}
{{- $pairs := list }}
{{- range $key, $value := . }}{{ $pairs = append $pairs (printf "%s=%s" $key $value) }}{{ end }}
{{- join "," $pairs }}
{{- end }}

{{/* What the operator does with a cluster's objects, kind by kind. */}}
{{- define "fedtune.rules" -}}
# Runs: read, and deleted when their time after the end is over. Their status is the operator's.
- apiGroups: [fedtune.io]
  resources: [federatedfinetunes]
  verbs: [list, watch, delete]
- apiGroups: [fedtune.io]
  resources: [federatedfinetunes/status]
  verbs: [update, patch]
# Owner references that hold up the owner's deletion take this where the cluster checks it.
- apiGroups: [fedtune.io]
  resources: [federatedfinetunes/finalizers]
  verbs: [update]
- apiGroups: [batch]
  resources: [jobs]
  verbs: [get, list, watch, create, patch, delete]
# Created in dry runs only: Jobs make the pods.
- apiGroups: [""]
  resources: [pods]
  verbs: [list, watch, create]
- apiGroups: [""]
  resources: [configmaps, persistentvolumeclaims]
  verbs: [get, list, watch, create]
# Certificates; those of others are asked for by name, to say that one is missing.
- apiGroups: [""]
  resources: [secrets]
  verbs: [get, list, watch, create, update]
- apiGroups: [""]
  resources: [services]
  verbs: [get, list, watch, create, patch]
- apiGroups: [networking.k8s.io]
  resources: [networkpolicies]
  verbs: [get, list, watch, create, patch]
# Why a pod does not start stands in its events.
- apiGroups: [""]
  resources: [events]
  verbs: [list]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
{{- end }}
