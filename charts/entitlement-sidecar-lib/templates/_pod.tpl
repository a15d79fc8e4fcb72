{{/* What a pod takes: five includes. All render nothing when `enabled` is false. */}}

{{/* Whether there is a sidecar: a word, or nothing. */}}
{{- define "entitlement-sidecar-lib._enabled" -}}
{{- $v := .values | default (.Values | default dict).sidecar | default dict -}}
{{- if ne (toString $v.enabled) "false" -}}yes{{- end -}}
{{- end -}}

{{/* Labels of the pod; the PodMonitor looks for them. */}}
{{- define "entitlement-sidecar-lib.podLabels" -}}
{{- if include "entitlement-sidecar-lib._enabled" . -}}
entitlement-sidecar/carrier: "true"
{{- end -}}
{{- end -}}

{{/* Items of `initContainers`: the native sidecar. Put it first, so that the others may ask it. */}}
{{- define "entitlement-sidecar-lib.initContainers" -}}
{{- if include "entitlement-sidecar-lib._enabled" . -}}
{{- $v := include "entitlement-sidecar-lib._values" . | fromYaml -}}
{{- if $v.native -}}
{{- include "entitlement-sidecar-lib._container" (dict "root" (.root | default .) "values" $v) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Items of `containers`: the plain sidecar, where `native` is false. */}}
{{- define "entitlement-sidecar-lib.containers" -}}
{{- if include "entitlement-sidecar-lib._enabled" . -}}
{{- $v := include "entitlement-sidecar-lib._values" . | fromYaml -}}
{{- if not $v.native -}}
{{- include "entitlement-sidecar-lib._container" (dict "root" (.root | default .) "values" $v) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Items of an application container's `env`: where it asks. */}}
{{- define "entitlement-sidecar-lib.appEnv" -}}
{{- if include "entitlement-sidecar-lib._enabled" . -}}
{{- $v := include "entitlement-sidecar-lib._values" . | fromYaml -}}
{{- $host := has $v.checks.address (list "0.0.0.0" "::") | ternary "localhost" $v.checks.address -}}
- name: SIDECAR_URL
  value: {{ printf "http://%s" (include "entitlement-sidecar-lib._address" (dict "address" $host "port" $v.checks.port)) | quote }}
{{- end -}}
{{- end -}}

{{/* Items of `volumes`: the Secrets, and the store. */}}
{{- define "entitlement-sidecar-lib.volumes" -}}
{{- if include "entitlement-sidecar-lib._enabled" . -}}
{{- include "entitlement-sidecar-lib._volumes" (include "entitlement-sidecar-lib._values" . | fromYaml) | trim -}}
{{- end -}}
{{- end -}}

{{- define "entitlement-sidecar-lib._volumes" -}}
{{- $v := . -}}
{{- range include "entitlement-sidecar-lib._secrets" $v | fromYamlArray }}
- name: entitlement-sidecar-{{ .volume }}
  secret:
    secretName: {{ .of.existingSecret | quote }}
    {{- /* Somebody else's pod has no fsGroup of ours, and the process is not root: so it must be for all to read. */}}
    defaultMode: 0444
    items:
      - key: {{ .of.key | quote }}
        path: {{ .of.key | quote }}
{{- end }}
{{- if $v.store.enabled }}
- name: entitlement-sidecar-store
  {{- if $v.store.volume }}
  {{- toYaml $v.store.volume | nindent 2 }}
  {{- else }}
  emptyDir:
    {{- /* The file, as much again for one that was set aside, and its log: beyond this the pod would be evicted. */}}
    sizeLimit: {{ printf "%dMi" (add 64 (mul 2 (include "entitlement-sidecar-lib._mebibytes" $v.settings.store_bytes | int64))) }}
  {{- end }}
{{- end }}
{{- end -}}

{{/* Seconds that the pod needs to end well: the hook, what is under way, and what is written after it. */}}
{{- define "entitlement-sidecar-lib.gracePeriodSeconds" -}}
{{- $v := include "entitlement-sidecar-lib._values" . | fromYaml -}}
{{- $drain := include "entitlement-sidecar-lib._seconds" $v.settings.drain_timeout | int64 -}}
{{- max 30 (add $v.preStopSleepSeconds $drain 10) -}}
{{- end -}}
