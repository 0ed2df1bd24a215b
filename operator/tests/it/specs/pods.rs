//! Specs about where the script stands, what is installed, and what pods are made of, that are refused, and why.

/// A spec that is refused, as YAML, and the words that say why.
pub(super) const REFUSED: [(&str, &str); 102] = [
    ("{scriptFrom: {}, nodeNames: [a]}", "spec.scriptFrom.configMapKeyRef: Required value"),
    (
        "{scriptFrom: {configMapKeyRef: {name: a}}, nodeNames: [a]}",
        "spec.scriptFrom.configMapKeyRef.key: Required value",
    ),
    (
        "{scriptFrom: {configMapKeyRef: {name: '', key: b}}, nodeNames: [a]}",
        "spec.scriptFrom.configMapKeyRef.name in body should be at least 1 chars long",
    ),
    (
        "{scriptFrom: {secretKeyRef: {name: a, key: b}}, nodeNames: [a]}",
        r#"unknown field "spec.scriptFrom.secretKeyRef""#,
    ),
    (
        "{scriptFrom: {configMapKeyRef: {name: a, key: b}, sha256: 2D711642B726B04401627CA9FBAC32F5C8530FB1903CC4DB02258717921A4881}, nodeNames: [a]}",
        "spec.scriptFrom.sha256 in body should match '^[0-9a-f]{64}$'",
    ),
    (
        "{scriptFrom: {configMapKeyRef: {name: a, key: b}}, nodeNames: [a], mode: Privileged, parallelism: 1, executionDeadlineSeconds: 1}",
        "a privileged mode needs scriptFrom.sha256, so that admission sees what runs; get it with sha256sum",
    ),
    ("{script: x, nodeNames: [a], envFrom: [{}]}", "give exactly one of configMapRef and secretRef"),
    (
        "{script: x, nodeNames: [a], envFrom: [{configMapRef: {name: a}, secretRef: {name: b}}]}",
        "give exactly one of configMapRef and secretRef",
    ),
    (
        "{script: x, nodeNames: [a], envFrom: [{prefix: SCRIPTRUNNER_, secretRef: {name: a}}]}",
        "names that start with SCRIPTRUNNER_ are set by the runner; choose another prefix",
    ),
    (
        "{script: x, nodeNames: [a], envFrom: [{prefix: 'A=', secretRef: {name: a}}]}",
        "spec.envFrom[0].prefix in body should match",
    ),
    (
        "{script: x, nodeNames: [a], envFrom: [{secretRef: {}}]}",
        "spec.envFrom[0].secretRef.name: Required value",
    ),
    (
        "{script: x, nodeNames: [a], mode: Privileged, parallelism: 1, executionDeadlineSeconds: 1, envFrom: [{secretRef: {name: a}}]}",
        "envFrom is for mode Normal only; write the values into the spec, where admission sees them",
    ),
    (
        "{script: x, nodeNames: [a], envFrom: [{secretRef: {name: a}}, {secretRef: {name: a}}, {secretRef: {name: a}}, {secretRef: {name: a}}, {secretRef: {name: a}}, {secretRef: {name: a}}, {secretRef: {name: a}}, {secretRef: {name: a}}, {secretRef: {name: a}}, {secretRef: {name: a}}, {secretRef: {name: a}}, {secretRef: {name: a}}, {secretRef: {name: a}}, {secretRef: {name: a}}, {secretRef: {name: a}}, {secretRef: {name: a}}, {secretRef: {name: a}}]}",
        "spec.envFrom: Too many: 17: must have at most 16 items",
    ),
    (
        "{script: x, nodeNames: [a], dependencies: {pip: ['-r a']}}",
        "a pip requirement cannot start with '-': options are not requirements; use indexURL, extraIndexURLs and trustedCA",
    ),
    (
        "{script: x, nodeNames: [a], dependencies: {packages: [jq]}}",
        "dependencies.packages need root; set runAs: Root, or put the packages into an image of your own",
    ),
    (
        "{script: x, nodeNames: [a], runAs: NonRoot, dependencies: {packages: [jq]}}",
        "dependencies.packages need root; set runAs: Root",
    ),
    (
        "{script: x, nodeNames: [a], runAs: Root, dependencies: {packages: ['-y']}}",
        "spec.dependencies.packages[0] in body should match",
    ),
    (
        "{script: x, nodeNames: [a], runAs: Root, dependencies: {packages: ['a b']}}",
        "spec.dependencies.packages[0] in body should match",
    ),
    (
        "{script: x, nodeNames: [a], dependencies: {indexURL: 'ftp://a'}}",
        "spec.dependencies.indexURL in body should match '^https?://[!-~]+$'",
    ),
    (
        "{script: x, nodeNames: [a], dependencies: {indexUrl: 'https://a'}}",
        r#"unknown field "spec.dependencies.indexUrl""#,
    ),
    (
        "{script: x, nodeNames: [a], dependencies: {extraIndexURLs: ['https://a b']}}",
        "spec.dependencies.extraIndexURLs[0] in body should match",
    ),
    (
        "{script: x, nodeNames: [a], dependencies: {trustedCA: {sha256: 2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881}}}",
        "spec.dependencies.trustedCA.configMapKeyRef: Required value",
    ),
    (
        "{script: x, nodeNames: [a], mode: Privileged, parallelism: 1, executionDeadlineSeconds: 1, dependencies: {trustedCA: {configMapKeyRef: {name: a, key: b}}}}",
        "a privileged mode needs dependencies.trustedCA.sha256, so that admission sees what is trusted; get it with sha256sum",
    ),
    (
        "{script: x, nodeNames: [a], dependencies: {installTimeoutSeconds: 0}}",
        "spec.dependencies.installTimeoutSeconds in body should be greater than or equal to 1",
    ),
    (
        "{script: x, nodeNames: [a], dependencies: {installTimeoutSeconds: 86401}}",
        "spec.dependencies.installTimeoutSeconds in body should be less than or equal to 86400",
    ),
    ("{script: x, nodeNames: [a], hostPID: true}", "hostPID, hostIPC and hostNetwork need a privileged mode"),
    ("{script: x, nodeNames: [a], hostIPC: true}", "hostPID, hostIPC and hostNetwork need a privileged mode"),
    (
        "{script: x, nodeNames: [a], hostNetwork: true, hostPID: false}",
        "hostPID, hostIPC and hostNetwork need a privileged mode",
    ),
    ("{script: x, nodeNames: [a], hostPid: true}", r#"unknown field "spec.hostPid""#),
    ("{script: x, nodeNames: [a], image: ''}", "spec.image in body should be at least 1 chars long"),
    ("{script: x, nodeNames: [a], image: '-a'}", "spec.image in body should match '^[A-Za-z0-9][!-~]*$'"),
    ("{script: x, nodeNames: [a], image: 'a b'}", "spec.image in body should match"),
    (
        "{script: x, nodeNames: [a], mode: Privileged, parallelism: 1, executionDeadlineSeconds: 1, image: 'python:3.13'}",
        "a privileged mode needs the image by digest (name@sha256:...), so that admission sees what runs",
    ),
    (
        "{script: x, nodeNames: [a], mode: Privileged, parallelism: 1, executionDeadlineSeconds: 1, image: 'python@sha256:2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881a'}",
        "a privileged mode needs the image by digest",
    ),
    (
        "{script: x, nodeNames: [a], imagePullPolicy: Sometimes}",
        r#"spec.imagePullPolicy: Unsupported value: "Sometimes": supported values: "IfNotPresent", "Always", "Never""#,
    ),
    (
        "{script: x, nodeNames: [a], imagePullSecrets: [a]}",
        "spec.imagePullSecrets[0] in body must be of type object",
    ),
    (
        "{script: x, nodeNames: [a], imagePullSecrets: [{name: ''}]}",
        "spec.imagePullSecrets[0].name in body should be at least 1 chars long",
    ),
    (
        "{script: x, nodeNames: [a], resources: {limits: {memory: -1}}}",
        "spec.resources.limits.memory in body should be greater than or equal to 0",
    ),
    (
        "{script: x, nodeNames: [a], resources: {limits: {memory: '-1Gi'}}}",
        "spec.resources.limits.memory in body should match",
    ),
    (
        "{script: x, nodeNames: [a], resources: {requests: {memory: 1 GB}}}",
        "spec.resources.requests.memory in body should match",
    ),
    (
        "{script: x, nodeNames: [a], resources: {requests: {cpu: 0.5}}}",
        "spec.resources.requests.cpu in body must be of type integer,string",
    ),
    (
        "{script: x, nodeNames: [a], resources: {claims: [{name: a}]}}",
        r#"unknown field "spec.resources.claims""#,
    ),
    (
        "{script: x, nodeNames: [a], podTemplate: {labels: {scriptrunner.io/uid: a}}}",
        "labels of scriptrunner.io are the operator's; choose another key",
    ),
    (
        "{script: x, nodeNames: [a], podTemplate: {labels: {a.scriptrunner.io/uid: a}}}",
        "labels of scriptrunner.io are the operator's",
    ),
    (
        "{script: x, nodeNames: [a], podTemplate: {labels: {a: '-b'}}}",
        "spec.podTemplate.labels.a in body should match",
    ),
    (
        "{script: x, nodeNames: [a], podTemplate: {annotations: {scriptrunner.io/shape: a}}}",
        "annotations whose key has scriptrunner.io, kubernetes.io, k8s.io, cri-o.io, crio.io, io.kubernetes, nri.io, cni.cncf.io, multus-cni.io, io.containers, run.oci, org.systemd.property, io.katacontainers or dev.gvisor between dots and slashes are not for users, because nodes act on them; choose another key",
    ),
    (
        "{script: x, nodeNames: [a], podTemplate: {annotations: {container.apparmor.security.beta.kubernetes.io/runner: unconfined}}}",
        "because nodes act on them; choose another key",
    ),
    (
        "{script: x, nodeNames: [a], podTemplate: {annotations: {io.kubernetes.cri-o.io/a: b}}}",
        "because nodes act on them; choose another key",
    ),
    (
        "{script: x, nodeNames: [a], podTemplate: {annotations: {nri.io/a: b}}}",
        "because nodes act on them; choose another key",
    ),
    (
        "{script: x, nodeNames: [a], podTemplate: {annotations: {cpu-quota.crio.io: b}}}",
        "because nodes act on them; choose another key",
    ),
    (
        "{script: x, nodeNames: [a], podTemplate: {annotations: {cpu-shared.crio.io/runner: b}}}",
        "because nodes act on them; choose another key",
    ),
    (
        "{script: x, nodeNames: [a], podTemplate: {annotations: {seccomp-profile.kubernetes.cri-o.io: b}}}",
        "because nodes act on them; choose another key",
    ),
    (
        "{script: x, nodeNames: [a], podTemplate: {annotations: {seccomp-profile.kubernetes.cri-o.io/POD: b}}}",
        "because nodes act on them; choose another key",
    ),
    (
        "{script: x, nodeNames: [a], podTemplate: {annotations: {io.kubernetes.cri-o.Devices: b}}}",
        "because nodes act on them; choose another key",
    ),
    (
        "{script: x, nodeNames: [a], podTemplate: {annotations: {io.kubernetes.cri.rdt-class: b}}}",
        "because nodes act on them; choose another key",
    ),
    (
        "{script: x, nodeNames: [a], podTemplate: {annotations: {io.containers.trace-syscall: b}}}",
        "because nodes act on them; choose another key",
    ),
    (
        "{script: x, nodeNames: [a], podTemplate: {annotations: {run.oci.keep_original_groups: b}}}",
        "because nodes act on them; choose another key",
    ),
    (
        "{script: x, nodeNames: [a], podTemplate: {annotations: {org.systemd.property.DevicePolicy: b}}}",
        "because nodes act on them; choose another key",
    ),
    (
        "{script: x, nodeNames: [a], podTemplate: {annotations: {io.katacontainers.config.hypervisor.kernel_params: b}}}",
        "because nodes act on them; choose another key",
    ),
    (
        "{script: x, nodeNames: [a], podTemplate: {annotations: {k8s.v1.cni.cncf.io/networks: b}}}",
        "because nodes act on them; choose another key",
    ),
    (
        "{script: x, nodeNames: [a], podTemplate: {annotations: {v1.multus-cni.io/default-network: b}}}",
        "because nodes act on them; choose another key",
    ),
    (
        "{script: x, nodeNames: [a], podTemplate: {annotations: {dev.gvisor.spec.mount.a.source: b}}}",
        "because nodes act on them; choose another key",
    ),
    (
        "{script: x, nodeNames: [a], podTemplate: {annotations: {example.com/io.kubernetes.cri-o.a: b}}}",
        "because nodes act on them; choose another key",
    ),
    (
        "{script: x, nodeNames: [a], podTemplate: {securityContext: {}}}",
        r#"unknown field "spec.podTemplate.securityContext""#,
    ),
    (
        "{script: x, nodeNames: [a], podTemplate: {serviceAccountName: a}}",
        r#"unknown field "spec.podTemplate.serviceAccountName""#,
    ),
    (
        "{script: x, nodeNames: [a], podTemplate: {priorityClassName: ''}}",
        "spec.podTemplate.priorityClassName in body should be at least 1 chars long",
    ),
    (
        "{script: x, nodeNames: [a], podTemplate: {runtimeClassName: ''}}",
        "spec.podTemplate.runtimeClassName in body should be at least 1 chars long",
    ),
    (
        "{script: x, nodeNames: [a], podTemplate: {volumes: [{name: a}]}}",
        "give exactly one of configMap, secret, emptyDir, persistentVolumeClaim, ephemeral; other kinds of volumes cannot be used",
    ),
    (
        "{script: x, nodeNames: [a], podTemplate: {volumes: [{name: a, emptyDir: {}, secret: {secretName: s}}]}}",
        "give exactly one of configMap, secret, emptyDir, persistentVolumeClaim, ephemeral",
    ),
    (
        "{script: x, nodeNames: [a], podTemplate: {volumes: [{name: a, hostPath: {path: /}}]}}",
        r#"unknown field "spec.podTemplate.volumes[0].hostPath""#,
    ),
    (
        "{script: x, nodeNames: [a], podTemplate: {volumes: [{name: A, emptyDir: {}}]}}",
        "spec.podTemplate.volumes[0].name in body should match '^[a-z0-9]([a-z0-9-]*[a-z0-9])?$'",
    ),
    (
        "{script: x, nodeNames: [a], podTemplate: {volumes: [{name: scriptrunner-work, emptyDir: {}}]}}",
        "names of volumes that start with scriptrunner- are the operator's; choose another name",
    ),
    (
        "{script: x, nodeNames: [a], podTemplate: {volumes: [{name: a, emptyDir: {}}, {name: a, emptyDir: {}}]}}",
        "two volumes have the same name; rename one",
    ),
    (
        "{script: x, nodeNames: [a], podTemplate: {volumes: [{name: a, emptyDir: {medium: HugePages}}]}}",
        r#"spec.podTemplate.volumes[0].emptyDir.medium: Unsupported value: "HugePages": supported values: "Memory""#,
    ),
    (
        "{script: x, nodeNames: [a], podTemplate: {volumes: [{name: a, emptyDir: {sizeLimit: big}}]}}",
        "spec.podTemplate.volumes[0].emptyDir.sizeLimit in body should match",
    ),
    (
        "{script: x, nodeNames: [a], podTemplate: {volumes: [{name: a, secret: {}}]}}",
        "spec.podTemplate.volumes[0].secret.secretName: Required value",
    ),
    (
        "{script: x, nodeNames: [a], podTemplate: {volumes: [{name: a, secret: {secretName: s, defaultMode: 512}}]}}",
        "spec.podTemplate.volumes[0].secret.defaultMode in body should be less than or equal to 511",
    ),
    (
        "{script: x, nodeNames: [a], podTemplate: {volumes: [{name: a, configMap: {name: c, items: [{key: k, path: ../a}]}}]}}",
        "the path of an item is relative and has no ..",
    ),
    (
        "{script: x, nodeNames: [a], podTemplate: {volumes: [{name: a, configMap: {name: c, items: [{key: k, path: /a}]}}]}}",
        "the path of an item is relative and has no ..",
    ),
    (
        "{script: x, nodeNames: [a], podTemplate: {volumes: [{name: a, persistentVolumeClaim: {}}]}}",
        "spec.podTemplate.volumes[0].persistentVolumeClaim.claimName: Required value",
    ),
    (
        "{script: x, nodeNames: [a], podTemplate: {volumes: [{name: a, ephemeral: {volumeClaimTemplate: {spec: {accessModes: [], resources: {}}}}}]}}",
        "spec.accessModes in body should have at least 1 items",
    ),
    (
        "{script: x, nodeNames: [a], mode: Privileged, parallelism: 1, executionDeadlineSeconds: 1, podTemplate: {volumes: [{name: a, configMap: {name: c}}]}}",
        "a volume of a ConfigMap is for mode Normal only, because whoever edits the ConfigMap would decide what a privileged script reads",
    ),
    (
        "{script: x, nodeNames: [a], podTemplate: {volumeMounts: [{name: a, mountPath: /a}]}}",
        "a volumeMount names a volume that podTemplate.volumes does not have; add the volume or correct the name",
    ),
    (
        "{script: x, nodeNames: [a], podTemplate: {volumes: [{name: a, emptyDir: {}}], volumeMounts: [{name: b, mountPath: /a}]}}",
        "a volumeMount names a volume that podTemplate.volumes does not have",
    ),
    (
        "{script: x, nodeNames: [a], podTemplate: {volumes: [{name: a, emptyDir: {}}], volumeMounts: [{name: a, mountPath: /a}, {name: a, mountPath: /a}]}}",
        "two volumeMounts have the same mountPath; change one",
    ),
    (
        "{script: x, nodeNames: [a], podTemplate: {volumes: [{name: a, emptyDir: {}}], volumeMounts: [{name: a, mountPath: /}]}}",
        "spec.podTemplate.volumeMounts[0].mountPath in body should be at least 2 chars long",
    ),
    (
        "{script: x, nodeNames: [a], podTemplate: {volumes: [{name: a, emptyDir: {}}], volumeMounts: [{name: a, mountPath: a/b}]}}",
        "spec.podTemplate.volumeMounts[0].mountPath in body should match '^(/[^/:]+)+$'",
    ),
    (
        "{script: x, nodeNames: [a], podTemplate: {volumes: [{name: a, emptyDir: {}}], volumeMounts: [{name: a, mountPath: /a/}]}}",
        "spec.podTemplate.volumeMounts[0].mountPath in body should match",
    ),
    (
        "{script: x, nodeNames: [a], podTemplate: {volumes: [{name: a, emptyDir: {}}], volumeMounts: [{name: a, mountPath: /a/../proc}]}}",
        "mountPath has no . and no ..",
    ),
    (
        "{script: x, nodeNames: [a], podTemplate: {volumes: [{name: a, emptyDir: {}}], volumeMounts: [{name: a, mountPath: /scriptrunner}]}}",
        "/scriptrunner, /host, /dev, /proc, /sys and /tmp are the runner's own; mount the volume elsewhere",
    ),
    (
        "{script: x, nodeNames: [a], podTemplate: {volumes: [{name: a, emptyDir: {}}], volumeMounts: [{name: a, mountPath: /scriptrunner/bin}]}}",
        "/scriptrunner, /host, /dev, /proc, /sys and /tmp are the runner's own; mount the volume elsewhere",
    ),
    (
        "{script: x, nodeNames: [a], podTemplate: {volumes: [{name: a, emptyDir: {}}], volumeMounts: [{name: a, mountPath: /host/etc}]}}",
        "/scriptrunner, /host, /dev, /proc, /sys and /tmp are the runner's own; mount the volume elsewhere",
    ),
    (
        "{script: x, nodeNames: [a], podTemplate: {volumes: [{name: a, emptyDir: {}}], volumeMounts: [{name: a, mountPath: /dev/shm}]}}",
        "/scriptrunner, /host, /dev, /proc, /sys and /tmp are the runner's own; mount the volume elsewhere",
    ),
    (
        "{script: x, nodeNames: [a], podTemplate: {volumes: [{name: a, emptyDir: {}}], volumeMounts: [{name: a, mountPath: /proc}]}}",
        "/scriptrunner, /host, /dev, /proc, /sys and /tmp are the runner's own; mount the volume elsewhere",
    ),
    (
        "{script: x, nodeNames: [a], podTemplate: {volumes: [{name: a, emptyDir: {}}], volumeMounts: [{name: a, mountPath: /sys/fs}]}}",
        "/scriptrunner, /host, /dev, /proc, /sys and /tmp are the runner's own; mount the volume elsewhere",
    ),
    (
        "{script: x, nodeNames: [a], podTemplate: {volumes: [{name: a, emptyDir: {}}], volumeMounts: [{name: a, mountPath: /tmp}]}}",
        "/scriptrunner, /host, /dev, /proc, /sys and /tmp are the runner's own; mount the volume elsewhere",
    ),
    (
        "{script: x, nodeNames: [a], podTemplate: {volumes: [{name: a, emptyDir: {}}], volumeMounts: [{name: a, mountPath: /a, subPath: /b}]}}",
        "subPath is relative and has no ..",
    ),
    (
        "{script: x, nodeNames: [a], podTemplate: {volumes: [{name: a, emptyDir: {}}], volumeMounts: [{name: a, mountPath: /a, subPath: b/../c}]}}",
        "subPath is relative and has no ..",
    ),
    (
        "{script: x, nodeNames: [a], podTemplate: {volumes: [{name: a, emptyDir: {}}], volumeMounts: [{name: a, mountPath: /a, mountPropagation: Bidirectional}]}}",
        r#"unknown field "spec.podTemplate.volumeMounts[0].mountPropagation""#,
    ),
    (
        "{script: x, nodeNames: [a], output: {truncation: Middle}}",
        r#"spec.output.truncation: Unsupported value: "Middle": supported values: "Tail", "Head""#,
    ),
    (
        "{script: x, nodeNames: [a], output: {groupBy: Node}}",
        r#"spec.output.groupBy: Unsupported value: "Node": supported values: "Output", "ExitCode", "Result""#,
    ),
    (
        "{script: x, nodeNames: [a], output: {keep: None}}",
        r#"spec.output.keep: Unsupported value: "None": supported values: "Full", "DigestOnly""#,
    ),
];

/// Specs that are accepted; together they use every one of these fields.
pub(super) const ACCEPTED: [&str; 13] = [
    "{scriptFrom: {configMapKeyRef: {name: a, key: b}}, nodeNames: [a]}",
    "{scriptFrom: {configMapKeyRef: {name: a, key: b}, sha256: 2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881}, nodeNames: [a], mode: Privileged, parallelism: 1, executionDeadlineSeconds: 1, dependencies: {packages: [jq, 'a=1.2-3~x', /usr/bin/dig], trustedCA: {configMapKeyRef: {name: a, key: c}, sha256: 2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881}}}",
    "{script: x, nodeNames: [a], envFrom: [{configMapRef: {name: a, optional: true}}, {prefix: A_, secretRef: {name: b, optional: false}}]}",
    "{script: x, nodeNames: [a], runAs: Root, dependencies: {pip: [six], packages: [jq], indexURL: 'https://user:word@a.example/simple', extraIndexURLs: ['http://b'], trustedCA: {configMapKeyRef: {name: a, key: c}}, installTimeoutSeconds: 86400}}",
    "{script: x, nodeNames: [a], mode: Privileged, parallelism: 1, executionDeadlineSeconds: 1, hostPID: true, hostIPC: true, hostNetwork: true, image: 'registry.example:5000/a/b:1@sha256:2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881', imagePullPolicy: Never}",
    "{script: x, nodeNames: [a], hostPID: false, hostIPC: false, hostNetwork: false, image: a, imagePullPolicy: Always, imagePullSecrets: [{name: a}]}",
    "{script: x, nodeNames: [a], resources: {requests: {cpu: 1, memory: '0.5Gi', example.com/gpu: 1}, limits: {cpu: '1500m', memory: 512Mi, example.com/gpu: '1'}}}",
    "{script: x, nodeNames: [a], podTemplate: {labels: {team: a, app.kubernetes.io/name: b}, annotations: {cluster-autoscaler.kubernetes.io/safe-to-evict: 'false', example.com/a: 'any text', mycrio.io: a, prun.oci.x: a, example.io/kubernetes.iox: a}, priorityClassName: low, runtimeClassName: gvisor}}",
    "{script: x, nodeNames: [a], podTemplate: {volumes: [{name: a, configMap: {name: c, items: [{key: k, path: a/b..c, mode: 256}], defaultMode: 511, optional: true}}, {name: b, secret: {secretName: s, items: [{key: k, path: p, mode: 0}], defaultMode: 0, optional: false}}, {name: c, emptyDir: {medium: Memory, sizeLimit: 64Mi}}], volumeMounts: [{name: a, mountPath: /etc/a, readOnly: true}, {name: b, mountPath: /tmp/b, subPath: p}, {name: c, mountPath: /scriptrunners}]}}",
    "{script: x, nodeNames: [a], podTemplate: {volumes: [{name: a, persistentVolumeClaim: {claimName: a, readOnly: true}}, {name: b, ephemeral: {volumeClaimTemplate: {spec: {accessModes: [ReadWriteOncePod], storageClassName: fast, resources: {requests: {storage: 1Gi}, limits: {storage: 2Gi}}}}}}], volumeMounts: [{name: a, mountPath: /a}, {name: a, mountPath: /b, subPath: c}, {name: b, mountPath: /c}]}}",
    "{script: x, nodeNames: [a], output: {stdoutLimitBytes: 0, stderrLimitBytes: 65536, truncation: Head, groupBy: Result, keep: DigestOnly}}",
    "{script: x, nodeNames: [a], mode: Privileged, parallelism: 1, executionDeadlineSeconds: 1, podTemplate: {volumes: [{name: a, secret: {secretName: s}}, {name: b, emptyDir: {sizeLimit: 1000}}], volumeMounts: [{name: a, mountPath: /a}]}, resources: {limits: {memory: 1000000000}}}",
    "{script: x, nodeNames: [a], envFrom: null, image: null, imagePullPolicy: null, imagePullSecrets: null, resources: null, podTemplate: null, hostPID: null, output: {truncation: null, groupBy: null, keep: null}}",
];
