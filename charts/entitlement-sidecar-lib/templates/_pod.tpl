{{/* What a pod takes: five includes. All render nothing when `enabled` is false. */}}

{{/* Labels of the pod; the PodMonitor looks for them. */}}
{{- define "entitlement-sidecar-lib.podLabels" -}}
{{- $found := dict -}}
{{- include "entitlement-sidecar-lib._find" (dict "from" . "into" $found) -}}
{{- if $found.wanted -}}
entitlement-sidecar/carrier: "true"
{{- end -}}
{{- end -}}

{{/* Items of `initContainers`: the native sidecar. Put it first, so that the others may ask it. */}}
{{- define "entitlement-sidecar-lib.initContainers" -}}
{{- $found := dict -}}
{{- include "entitlement-sidecar-lib._find" (dict "from" . "into" $found) -}}
{{- if and $found.wanted $found.values.native -}}
{{- include "entitlement-sidecar-lib._container" $found -}}
{{- end -}}
{{- end -}}

{{/* Items of `containers`: the plain sidecar, where `native` is false. */}}
{{- define "entitlement-sidecar-lib.containers" -}}
{{- $found := dict -}}
{{- include "entitlement-sidecar-lib._find" (dict "from" . "into" $found) -}}
{{- if and $found.wanted (not $found.values.native) -}}
{{- include "entitlement-sidecar-lib._container" $found -}}
{{- end -}}
{{- end -}}

{{/* Items of an application container's `env`: where it asks. */}}
{{- define "entitlement-sidecar-lib.appEnv" -}}
{{- $found := dict -}}
{{- include "entitlement-sidecar-lib._find" (dict "from" . "into" $found) -}}
{{- if $found.wanted -}}
{{- $checks := $found.values.checks -}}
{{- $host := has $checks.address (list "0.0.0.0" "::") | ternary "localhost" $checks.address -}}
- name: SIDECAR_URL
  value: {{ printf "http://%s" (include "entitlement-sidecar-lib._address" (dict "address" $host "port" $checks.port)) | quote }}
{{- end -}}
{{- end -}}

{{/* Items of `volumes`: the Secrets, and the store. */}}
{{- define "entitlement-sidecar-lib.volumes" -}}
{{- $found := dict -}}
{{- include "entitlement-sidecar-lib._find" (dict "from" . "into" $found) -}}
{{- if $found.wanted -}}
{{- include "entitlement-sidecar-lib._volumes" $found.values | trim -}}
{{- end -}}
{{- end -}}

{{- define "entitlement-sidecar-lib._volumes" -}}
{{- range include "entitlement-sidecar-lib._secrets" . | fromYamlArray }}
- name: entitlement-sidecar-{{ .volume }}
  secret:
    secretName: {{ .of.existingSecret | quote }}
    {{- /* Somebody else's pod has no fsGroup of ours, and the process is not root: so it must be for all to read. */}}
    defaultMode: 0444
    items:
      - key: {{ .of.key | quote }}
        path: {{ .of.key | quote }}
{{- end }}
{{- if .store.enabled }}
- name: entitlement-sidecar-store
  {{- if .store.volume }}
  {{- toYaml .store.volume | nindent 2 }}
  {{- else }}
  emptyDir:
    {{- /* The file, as much again for one that was set aside, and its log: beyond this the pod would be evicted. */}}
    sizeLimit: {{ printf "%dMi" (add 64 (mul 2 (include "entitlement-sidecar-lib._mebibytes" .settings.store_bytes | int64))) }}
  {{- end }}
{{- end }}
{{- end -}}

{{/* Seconds that the pod needs to end well: the hook, what is under way, and what is written after it. */}}
{{- define "entitlement-sidecar-lib.gracePeriodSeconds" -}}
{{- $found := dict -}}
{{- include "entitlement-sidecar-lib._find" (dict "from" . "into" $found) -}}
{{- $drain := include "entitlement-sidecar-lib._seconds" $found.values.settings.drain_timeout | int64 -}}
{{- max 30 (add $found.values.preStopSleepSeconds $drain 10) -}}
{{- end -}}
