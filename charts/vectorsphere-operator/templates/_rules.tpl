{{/*
What the operator may do where it looks after clusters. Each rule names the code that needs it. Writes of objects are
server-side applies: `patch`, and `create` where the object is not there yet. Nothing needs `update`.
*/}}
{{- define "vectorsphere-operator.rules" -}}
# controller.rs watches clusters, and lists one at the start to see whether the definition is installed.
- apiGroups: [vectorsphere.io]
  resources: [vectorsphereclusters]
  verbs: [list, watch]
# reconcile.rs writes the status, and never the spec.
- apiGroups: [vectorsphere.io]
  resources: [vectorsphereclusters/status]
  verbs: [patch]
# The objects of a cluster: controller.rs watches and fetch.rs lists them; apply.rs gets one before it is made, to see
# that the name is free, and applies it. They are never deleted: that is the garbage collector's work, with the cluster.
# Masters, slaves and managed etcds:
- apiGroups: [apps]
  resources: [statefulsets]
  verbs: [get, list, watch, create, patch]
# Their Services, the nodes' settings, and the account of the pods, which has no rights:
- apiGroups: [""]
  resources: [services, configmaps, serviceaccounts]
  verbs: [get, list, watch, create, patch]
# The same for budgets and Ingresses, which apply.rs also deletes: when a group shrank to one pod, and when the spec no
# longer asks for an Ingress.
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [networking.k8s.io]
  resources: [ingresses]
  verbs: [get, list, watch, create, patch, delete]
# controller.rs watches and fetch.rs lists the pods of clusters, to tell how many are ready and which are outdated.
- apiGroups: [""]
  resources: [pods]
  verbs: [list, watch]
{{- if .Values.rbac.zones }}
# zones.rs labels pods with the zone of their node (rbac.zones).
- apiGroups: [""]
  resources: [pods]
  verbs: [patch]
{{- end }}
{{- if .Values.rbac.secrets.read }}
# fetch.rs gets the Secrets that a cluster names for its external etcd: to see whether they hold what nodes need, and to
# read from etcd who is Master.
- apiGroups: [""]
  resources: [secrets]
  {{- with .Values.rbac.secrets.names }}
  resourceNames: {{ toJson . }}
  {{- end }}
  verbs: [get]
{{- end }}
# events.rs tells on a cluster what changed, and counts what repeats.
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
{{- end }}
