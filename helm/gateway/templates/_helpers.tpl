{{/* The name of the application: a label, at most 63 characters. */}}
{{- define "gateway.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* The name of this release's objects. It leaves room for "-admin" within 63 characters. */}}
{{- define "gateway.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 57 | trimSuffix "-" }}
{{- else if contains (include "gateway.name" .) .Release.Name -}}
{{- .Release.Name | trunc 57 | trimSuffix "-" }}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "gateway.name" .) | trunc 57 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "gateway.selectorLabels" -}}
app.kubernetes.io/name: {{ include "gateway.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "gateway.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{ include "gateway.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "gateway.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "gateway.fullname" .) .Values.serviceAccount.name }}
{{- else -}}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{/* The environment: every setting that the chart decides, then the user's own. */}}
{{- define "gateway.env" -}}
- name: GATEWAY_CONFIG
  value: /etc/gateway/routes.yaml
- name: GATEWAY_BIND
  value: {{ printf "%s:8080" .Values.listenAddress | quote }}
- name: GATEWAY_ADMIN
  value: {{ printf "%s:9901" .Values.listenAddress | quote }}
{{- if .Values.adminService.enabled }}
{{- $admin := printf "%s-admin" (include "gateway.fullname" .) }}
{{- $inside := printf "%s.%s" $admin .Release.Namespace }}
- name: GATEWAY_ADMIN_HOSTS
  value: {{ printf "%s,%s,%s.svc,%s.svc.cluster.local" $admin $inside $inside $inside | quote }}
{{- end }}
- name: GATEWAY_STATE_DIR
  value: /var/lib/gateway
- name: GATEWAY_DRAIN_DELAY
  value: {{ printf "%ds" (int .Values.drain.delaySeconds) }}
- name: GATEWAY_DRAIN_IDLE
  value: {{ printf "%ds" (int .Values.drain.idleSeconds) }}
- name: GATEWAY_DRAIN_TIMEOUT
  value: {{ printf "%ds" (int .Values.drain.timeoutSeconds) }}
- name: GATEWAY_ACCESS_LOG
  value: {{ .Values.accessLog | quote }}
- name: GATEWAY_LOG_FORMAT
  value: {{ .Values.logFormat }}
{{- with .Values.trustedProxies }}
- name: GATEWAY_TRUSTED_PROXIES
  value: {{ join "," . | quote }}
{{- end }}
{{- if .Values.consul.enabled }}
{{- include "gateway.consulEnv" . }}
{{- else }}
- name: GATEWAY_REGISTRY
  value: static
{{- end }}
{{- with .Values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "gateway.consulEnv" }}
{{- if .Values.consul.address }}
- name: GATEWAY_CONSUL_ADDRESS
  value: {{ .Values.consul.address | quote }}
{{- else }}
- name: HOST_IP
  valueFrom:
    fieldRef:
      fieldPath: status.hostIP
- name: GATEWAY_CONSUL_ADDRESS
  value: http://$(HOST_IP):{{ int .Values.consul.agentPort }}
{{- end }}
{{- with .Values.consul.datacenter }}
- name: GATEWAY_CONSUL_DATACENTER
  value: {{ . | quote }}
{{- end }}
{{- if .Values.consul.tokenSecret.name }}
- name: GATEWAY_CONSUL_TOKEN_FILE
  value: /etc/gateway-consul-token/token
{{- end }}
{{- if .Values.consul.caSecret.name }}
- name: GATEWAY_CONSUL_CACERT
  value: /etc/gateway-consul-ca/ca.crt
{{- end }}
{{- end }}
