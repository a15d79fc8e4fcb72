{{/* Name of the objects; short enough for what is appended. */}}
{{- define "entitlement-sidecar.name" -}}
{{- $name := .Values.fullnameOverride | default (contains "entitlement-sidecar" .Release.Name | ternary .Release.Name (printf "%s-entitlement-sidecar" .Release.Name)) -}}
{{- $name | trunc 50 | trimSuffix "-" -}}
{{- end -}}

{{- define "entitlement-sidecar.selector" -}}
app.kubernetes.io/name: entitlement-sidecar
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end -}}

{{- define "entitlement-sidecar.labels" -}}
{{ include "entitlement-sidecar.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service | quote }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | quote }}
{{- end -}}

{{- define "entitlement-sidecar.serviceAccount" -}}
{{- .Values.serviceAccount.name | default (.Values.serviceAccount.create | ternary (include "entitlement-sidecar.name" .) "default") -}}
{{- end -}}

{{/*
Puts into `.into` what the library's templates take: the values under `sidecar`, and what follows from being a service. It is not native, as
nobody else is in its pod; it is asked under the Service's names; and replicas of a Deployment share one budget.
*/}}
{{- define "entitlement-sidecar.find" -}}
{{- $into := .into -}}
{{- with .root -}}
{{- $v := deepCopy .Values.sidecar -}}
{{- $_ := set $v "native" false -}}
{{- $_ := set $v "enabled" true -}}
{{- if not $v.settings.allowed_hosts -}}
{{- $name := include "entitlement-sidecar.name" . -}}
{{- $inside := printf "%s.%s" $name .Release.Namespace -}}
{{- $service := printf "%s.svc" $inside -}}
{{- $hosts := list "localhost" "127.0.0.1" "[::1]" $name $inside $service (printf "%s.%s" $service .Values.clusterDomain) -}}
{{- $_ := set $v.settings "allowed_hosts" $hosts -}}
{{- end -}}
{{- if and (eq .Values.kind "Deployment") (not $v.settings.replicas) -}}
{{- $_ := set $v.settings "replicas" (max 1 (int (.Values.autoscaling.enabled | ternary .Values.autoscaling.maxReplicas .Values.replicas))) -}}
{{- end -}}
{{- $_ := set $into "values" $v -}}
{{- end -}}
{{- end -}}

{{/* Contradictions that no schema can name. */}}
{{- define "entitlement-sidecar.check" -}}
{{- $wanted := or .Values.webhookIngress.enabled .Values.webhookRoute.enabled -}}
{{- if eq .Values.kind "None" -}}
{{- if $wanted -}}
{{- fail "webhookIngress and webhookRoute need a kind that runs: kind is None" -}}
{{- end -}}
{{- if not (or .Values.podMonitor.enabled .Values.prometheusRule.enabled .Values.dashboard.enabled) -}}
{{- fail "kind is None and nothing else is wanted: enable podMonitor, prometheusRule or dashboard" -}}
{{- end -}}
{{- else -}}
{{- if and $wanted (not .Values.sidecar.webhooks.existingSecret) -}}
{{- fail "webhookIngress and webhookRoute need sidecar.webhooks.existingSecret: without the signing secret no webhook is taken" -}}
{{- end -}}
{{- if not (or .Values.sidecar.token.existingSecret .Values.sidecar.checks.insecure) -}}
{{- fail "callers are in other pods: set sidecar.token.existingSecret, or sidecar.checks.insecure to let every pod ask that can reach it" -}}
{{- end -}}
{{- if and (eq .Values.kind "DaemonSet") .Values.autoscaling.enabled -}}
{{- fail "autoscaling is for a Deployment: a DaemonSet has a pod for each node" -}}
{{- end -}}
{{- if and .Values.autoscaling.enabled (gt (int .Values.autoscaling.minReplicas) (int .Values.autoscaling.maxReplicas)) -}}
{{- fail "autoscaling.minReplicas is greater than autoscaling.maxReplicas" -}}
{{- end -}}
{{- end -}}
{{- end -}}
