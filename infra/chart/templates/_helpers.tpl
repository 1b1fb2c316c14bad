{{- define "headwater.name" -}}
{{- if contains "headwater" .Release.Name }}{{ .Release.Name | trunc 45 | trimSuffix "-" }}{{ else }}{{ printf "%s-headwater" .Release.Name | trunc 45 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "headwater.selector" -}}
app.kubernetes.io/name: headwater
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "headwater.labels" -}}
{{ include "headwater.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "headwater.image" -}}
{{ printf "%s:%s" .Values.image.repository (.Values.image.tag | default .Chart.AppVersion) }}
{{- end }}

{{/* What every pod has in common: nobody is root, nothing is written but to volumes. */}}
{{- define "headwater.pod" -}}
serviceAccountName: {{ include "headwater.name" . }}
automountServiceAccountToken: false
# Without it a release called headwater would be told HEADWATER_PORT and the like by Kubernetes.
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: {type: RuntimeDefault}
{{- with .Values.imagePullSecrets }}
imagePullSecrets: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.affinity }}
affinity: {{ toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "headwater.container" -}}
image: {{ include "headwater.image" . | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
{{- end }}

{{- define "headwater.fromSecret" -}}
valueFrom: {secretKeyRef: {name: {{ .root.Values.secret | quote }}, key: {{ .key }}{{ if .optional }}, optional: true{{ end }}}}
{{- end }}

{{/* How a process reaches S3. */}}
{{- define "headwater.s3" -}}
- name: AWS_ACCESS_KEY_ID
  {{ include "headwater.fromSecret" (dict "root" . "key" "s3AccessKey" "optional" true) }}
- name: AWS_SECRET_ACCESS_KEY
  {{ include "headwater.fromSecret" (dict "root" . "key" "s3SecretKey" "optional" true) }}
- {name: AWS_DEFAULT_REGION, value: {{ .Values.s3.region | quote }}}
{{- end }}

{{/* What headwater reads: the names are those of infra/settings.py. */}}
{{- define "headwater.environment" -}}
- {name: HEADWATER_HOME, value: /var/lib/headwater}
- {name: HEADWATER_STORAGE, value: {{ .Values.s3.storage | quote }}}
{{- with .Values.s3.endpoint }}
- {name: HEADWATER_S3_ENDPOINT, value: {{ . | quote }}}
{{- end }}
- name: HEADWATER_DATABASE_URL
  {{ include "headwater.fromSecret" (dict "root" . "key" "databaseUrl") }}
- {name: HEADWATER_MLFLOW_URI, value: "http://{{ include "headwater.name" . }}-mlflow:5000"}
- name: HEADWATER_SIGNING_KEY
  {{ include "headwater.fromSecret" (dict "root" . "key" "signingKey") }}
- {name: HEADWATER_LOG, value: {{ .Values.log }}}
- {name: HEADWATER_OTEL, value: {{ .Values.otel.enabled | quote }}}
{{- with .Values.otel.endpoint }}
- {name: OTEL_EXPORTER_OTLP_ENDPOINT, value: {{ . | quote }}}
{{- end }}
{{ include "headwater.s3" . }}
- {name: PREFECT_API_URL, value: "http://{{ include "headwater.name" . }}-prefect:4200/api"}
- name: PREFECT_API_AUTH_STRING
  {{ include "headwater.fromSecret" (dict "root" . "key" "prefectAuthString") }}
- {name: PREFECT_HOME, value: /var/lib/headwater/prefect}
{{- end }}

{{- define "headwater.mounts" -}}
- {name: home, mountPath: /var/lib/headwater}
- {name: scratch, mountPath: /tmp}
{{- if .Values.pipelines.configMap }}
- {name: pipelines, mountPath: /pipelines, readOnly: true}
{{- end }}
{{- end }}
