{{/*
Every template takes the root context and finds its values under the alias `sidecar`; for values that are elsewhere it
takes `dict "root" $ "values" $values`. Those whose name has an underscore are private.
*/}}

{{/* Refuses values that the schema cannot. */}}
{{- define "entitlement-sidecar-lib._check" -}}
{{- $v := .values -}}
{{- if not $v.credentials.existingSecret -}}
{{- fail "sidecar.credentials.existingSecret is required: the name of a Secret with Stripe's API key" -}}
{{- end -}}
{{- $local := or (hasPrefix "127." $v.checks.address) (has $v.checks.address (list "localhost" "::1")) -}}
{{- if and $v.token.existingSecret $v.checks.insecure -}}
{{- fail "sidecar.checks.insecure contradicts sidecar.token.existingSecret: callers need the token, or they do not" -}}
{{- end -}}
{{- if not (or $local $v.token.existingSecret $v.checks.insecure) -}}
{{- fail (printf "sidecar.checks.address %s can be reached from other pods: set sidecar.token.existingSecret, or sidecar.checks.insecure to allow it" $v.checks.address) -}}
{{- end -}}
{{- $ports := list (int $v.checks.port) (int $v.ops.port) -}}
{{- if $v.webhooks.existingSecret -}}
{{- $ports = append $ports (int $v.webhooks.port) -}}
{{- end -}}
{{- if ne (len $ports) (len (uniq $ports)) -}}
{{- fail (printf "sidecar.checks.port, sidecar.ops.port and sidecar.webhooks.port must differ: %s" (join ", " $ports)) -}}
{{- end -}}
{{- if and $v.store.encryption.existingSecret (not $v.store.enabled) -}}
{{- fail "sidecar.store.encryption.existingSecret is set, but there is nothing to encrypt: sidecar.store.enabled is false" -}}
{{- end -}}
{{- end -}}

{{/* host:port for the process; IPv6 in brackets. */}}
{{- define "entitlement-sidecar-lib._address" -}}
{{- printf (contains ":" .address | ternary "[%s]:%d" "%s:%d") .address (int .port) -}}
{{- end -}}

{{/* A value as the process reads it from its environment. */}}
{{- define "entitlement-sidecar-lib._text" -}}
{{- if kindIs "slice" . -}}
{{- if kindIs "map" (first .) -}}
{{- $parts := list -}}
{{- range . -}}
{{- range $glob, $what := . -}}
{{- $parts = append $parts (printf "%s:%s" (toRawJson $glob) (toRawJson $what)) -}}
{{- end -}}
{{- end -}}
{ {{- join "," $parts -}} }
{{- else -}}
{{- join "," . -}}
{{- end -}}
{{- else if kindIs "string" . -}}
{{- . -}}
{{- else -}}
{{- toRawJson . -}}
{{- end -}}
{{- end -}}

{{/* MiB in a size such as 128MiB, rounded up. */}}
{{- define "entitlement-sidecar-lib._mebibytes" -}}
{{- $text := kindIs "string" . | ternary . (toRawJson .) -}}
{{- $units := dict "B" 1 "KB" 1e3 "MB" 1e6 "GB" 1e9 "TB" 1e12 "KiB" 1024 "MiB" 1048576 "GiB" 1073741824 "TiB" 1099511627776 -}}
{{- $factor := get $units (regexFind "[A-Za-z]+$" $text | default "B") -}}
{{- divf (mulf (regexFind "^[0-9.]+" $text) $factor) 1048576 | ceil | int64 -}}
{{- end -}}

{{/* Seconds in a duration such as 5s, rounded up. */}}
{{- define "entitlement-sidecar-lib._seconds" -}}
{{- $text := kindIs "string" . | ternary . (toRawJson .) -}}
{{- $units := dict "ms" 0.001 "s" 1 "m" 60 "h" 3600 "d" 86400 -}}
{{- $factor := get $units (regexFind "[a-z]+$" $text | default "s") -}}
{{- mulf (regexFind "^[0-9.]+" $text) $factor | ceil | int64 -}}
{{- end -}}

{{/* The image's name: a digest goes before a tag. */}}
{{- define "entitlement-sidecar-lib._image" -}}
{{- $registry := ((.root.Values).global | default dict).imageRegistry | default .image.registry -}}
{{- with $registry -}}{{- . -}}/{{- end -}}
{{- .image.repository -}}
{{- if .image.digest -}}@{{- .image.digest -}}{{- else -}}:{{- .image.tag -}}{{- end -}}
{{- end -}}

{{/*
Requests and limits. 64 MiB is the process at rest (54 measured, 60 after a load), and what is remembered takes what
`cache_bytes` says. The limit leaves room for connections, long lists and what the allocator keeps. No CPU limit: a
throttled sidecar throttles the application.
*/}}
{{- define "entitlement-sidecar-lib._resources" -}}
{{- $cache := include "entitlement-sidecar-lib._mebibytes" .settings.cache_bytes | int64 -}}
{{- $requests := dict "cpu" "20m" "memory" (printf "%dMi" (add 64 $cache)) -}}
{{- $limits := dict "memory" (printf "%dMi" (add 128 $cache (div $cache 8))) -}}
{{- toYaml (mergeOverwrite (dict "requests" $requests "limits" $limits) (deepCopy .resources)) -}}
{{- end -}}

{{/* A probe of the ops listener. */}}
{{- define "entitlement-sidecar-lib._probe" -}}
httpGet:
  path: {{ .path }}
  port: {{ int .port }}
{{- range $name, $number := .times }}
{{ $name }}: {{ int $number }}
{{- end }}
{{- end -}}

{{/* Where the pod's files are, by volume: what is kept in the store, and one folder for each Secret. */}}
{{- define "entitlement-sidecar-lib._secrets" -}}
{{- $secrets := list (dict "volume" "stripe" "of" .credentials "variable" "STRIPE_API_KEY_FILE") -}}
{{- $secrets = append $secrets (dict "volume" "token" "of" .token "variable" "LOCAL_TOKEN_FILE") -}}
{{- $secrets = append $secrets (dict "volume" "webhooks" "of" .webhooks "variable" "WEBHOOK_SECRET_FILE") -}}
{{- $secrets = append $secrets (dict "volume" "store-key" "of" .store.encryption "variable" "STORE_KEY_FILE") -}}
{{- $wanted := list -}}
{{- range $secrets -}}
{{- if .of.existingSecret -}}
{{- $wanted = append $wanted . -}}
{{- end -}}
{{- end -}}
{{- toYaml $wanted -}}
{{- end -}}

{{/*
Puts into the dictionary `.into` what a template needs, for `include` returns only text: `root`, `values`, and whether there
is a sidecar at all (`wanted`); `.from` is what the template was given.
*/}}
{{- define "entitlement-sidecar-lib._find" -}}
{{- $values := .from.values | default (.from.Values | default dict).sidecar -}}
{{- if not $values -}}
{{- fail "entitlement-sidecar-lib: there are no values: give the dependency the alias sidecar, or include with (dict \"root\" $ \"values\" …)" -}}
{{- end -}}
{{- $_ := set .into "root" (.from.root | default .from) -}}
{{- $_ := set .into "values" $values -}}
{{- $_ := set .into "wanted" $values.enabled -}}
{{- if $values.enabled -}}
{{- include "entitlement-sidecar-lib._check" .into -}}
{{- end -}}
{{- end -}}

{{/* The container. */}}
{{- define "entitlement-sidecar-lib._container" -}}
{{- $v := .values -}}
{{- $secrets := include "entitlement-sidecar-lib._secrets" $v | fromYamlArray -}}
- name: {{ $v.name | quote }}
  image: {{ include "entitlement-sidecar-lib._image" (dict "root" .root "image" $v.image) | quote }}
  imagePullPolicy: {{ $v.image.pullPolicy }}
  {{- if $v.native }}
  restartPolicy: Always
  {{- end }}
  args: [serve]
  env:
    - name: SIDECAR_LISTEN
      value: {{ include "entitlement-sidecar-lib._address" $v.checks | quote }}
    - name: SIDECAR_OPS_LISTEN
      value: {{ include "entitlement-sidecar-lib._address" $v.ops | quote }}
    {{- if $v.checks.insecure }}
    - name: SIDECAR_INSECURE_LISTEN
      value: "true"
    {{- end }}
    {{- if $v.webhooks.existingSecret }}
    - name: SIDECAR_WEBHOOK_LISTEN
      value: {{ include "entitlement-sidecar-lib._address" $v.webhooks | quote }}
    {{- end }}
    {{- range $secrets }}
    - name: SIDECAR_{{ .variable }}
      value: {{ printf "/run/secrets/entitlement-sidecar/%s/%s" .volume .of.key | quote }}
    {{- end }}
    {{- if $v.store.enabled }}
    - name: SIDECAR_STORE
      value: sqlite:///var/lib/entitlement-sidecar/lists.db
    {{- end }}
    {{- range $name, $value := $v.settings }}
    - name: SIDECAR_{{ upper $name }}
      value: {{ include "entitlement-sidecar-lib._text" $value | quote }}
    {{- end }}
    {{- with $v.extraEnv }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  ports:
    {{- /* Loopback is nobody else's business. */}}
    {{- if or $v.token.existingSecret $v.checks.insecure }}
    - name: ent-checks
      containerPort: {{ int $v.checks.port }}
      protocol: TCP
    {{- end }}
    - name: ent-ops
      containerPort: {{ int $v.ops.port }}
      protocol: TCP
    {{- if $v.webhooks.existingSecret }}
    - name: ent-webhooks
      containerPort: {{ int $v.webhooks.port }}
      protocol: TCP
    {{- end }}
  {{- with $v.startupProbe }}
  startupProbe:
    {{- include "entitlement-sidecar-lib._probe" (dict "path" "/startupz" "port" $v.ops.port "times" .) | nindent 4 }}
  {{- end }}
  {{- with $v.livenessProbe }}
  livenessProbe:
    {{- include "entitlement-sidecar-lib._probe" (dict "path" "/livez" "port" $v.ops.port "times" .) | nindent 4 }}
  {{- end }}
  {{- with $v.readinessProbe }}
  readinessProbe:
    {{- include "entitlement-sidecar-lib._probe" (dict "path" "/readyz" "port" $v.ops.port "times" .) | nindent 4 }}
  {{- end }}
  {{- /* A native sidecar is told to end after the application anyway; its hook would run at once with the application's. */}}
  {{- if and (not $v.native) $v.preStopSleepSeconds }}
  lifecycle:
    preStop:
      exec:
        command: [entitlement-sidecar, sleep, {{ int $v.preStopSleepSeconds | quote }}]
  {{- end }}
  resources:
    {{- include "entitlement-sidecar-lib._resources" $v | nindent 4 }}
  securityContext:
    {{- toYaml $v.securityContext | nindent 4 }}
  terminationMessagePolicy: FallbackToLogsOnError
  volumeMounts:
    {{- range $secrets }}
    - name: entitlement-sidecar-{{ .volume }}
      mountPath: /run/secrets/entitlement-sidecar/{{ .volume }}
      readOnly: true
    {{- end }}
    {{- if $v.store.enabled }}
    - name: entitlement-sidecar-store
      mountPath: /var/lib/entitlement-sidecar
    {{- end }}
{{- end -}}
