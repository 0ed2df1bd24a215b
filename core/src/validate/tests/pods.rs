//! Rules of image, host, volumes, metadata and dependencies: the API server has them too, but not for objects that are older.

use super::*;

/// A spec that is refused, and words of the refusal.
const REFUSED: [(&str, &str); 76] = [
    ("{script: x, nodeNames: [a], image: ''}", "is no name of an image"),
    ("{script: x, nodeNames: [a], image: '-a'}", "is no name of an image"),
    ("{script: x, nodeNames: [a], image: 'a b'}", "is no name of an image"),
    (
        "{script: x, nodeNames: [a], mode: Privileged, parallelism: 1, executionDeadlineSeconds: 1, image: 'a:1'}",
        "a privileged mode needs the image by digest",
    ),
    (
        "{script: x, nodeNames: [a], mode: Privileged, parallelism: 1, executionDeadlineSeconds: 1, image: 'a@sha256:0'}",
        "by digest",
    ),
    ("{script: x, nodeNames: [a], hostPID: true}", "need a privileged mode"),
    ("{script: x, nodeNames: [a], hostNetwork: true}", "need a privileged mode"),
    ("{script: x, nodeNames: [a], hostIPC: true}", "need a privileged mode"),
    (
        "{script: x, nodeNames: [a], mode: Privileged, parallelism: 1, executionDeadlineSeconds: 1, envFrom: [{secretRef: {name: a}}]}",
        "envFrom is for mode Normal only",
    ),
    ("{script: x, nodeNames: [a], envFrom: [{}]}", "envFrom[0]: give exactly one"),
    (
        "{script: x, nodeNames: [a], envFrom: [{secretRef: {name: a}, configMapRef: {name: a}}]}",
        "exactly one",
    ),
    (
        "{script: x, nodeNames: [a], envFrom: [{prefix: SCRIPTRUNNER_, secretRef: {name: a}}]}",
        "choose another prefix",
    ),
    ("{script: x, nodeNames: [a], envFrom: [{prefix: 'a=', secretRef: {name: a}}]}", "without '='"),
    ("{script: x, nodeNames: [a], dependencies: {packages: [jq]}}", "dependencies.packages need root"),
    (
        "{script: x, nodeNames: [a], runAs: Root, dependencies: {packages: ['-y']}}",
        "\"-y\" is no name of a package",
    ),
    (
        "{script: x, nodeNames: [a], runAs: Root, dependencies: {packages: ['a;b']}}",
        "is no name of a package",
    ),
    (
        "{script: x, nodeNames: [a], dependencies: {indexURL: 'ftp://user:secret@a'}}",
        "not one with scheme \"ftp\"",
    ),
    ("{script: x, nodeNames: [a], dependencies: {extraIndexURLs: ['https://a b']}}", "without spaces"),
    ("{script: x, nodeNames: [a], dependencies: {installTimeoutSeconds: 0}}", "installTimeoutSeconds is 0"),
    ("{script: x, nodeNames: [a], dependencies: {installTimeoutSeconds: 86401}}", "from 1 to 86400"),
    (
        "{scriptFrom: {configMapKeyRef: {name: a, key: b}}, nodeNames: [a], mode: Privileged, parallelism: 1, executionDeadlineSeconds: 1}",
        "a privileged mode needs scriptFrom.sha256",
    ),
    (
        "{scriptFrom: {sha256: A, configMapKeyRef: {name: a, key: b}}, nodeNames: [a]}",
        "scriptFrom.sha256 is \"A\"",
    ),
    (
        "{script: x, nodeNames: [a], dependencies: {trustedCA: {configMapKeyRef: {name: a, key: b}}}, mode: Privileged, parallelism: 1, executionDeadlineSeconds: 1}",
        "dependencies.trustedCA.sha256",
    ),
    (
        "{script: x, nodeNames: [a], resources: {limits: {memory: '-1'}}}",
        "memory is \"-1\", which is no quantity",
    ),
    ("{script: x, nodeNames: [a], resources: {requests: {memory: 1 Gi}}}", "is no quantity"),
    (
        "{script: x, nodeNames: [a], resources: {requests: {memory: 1Gi}, limits: {memory: 1000M}}}",
        "above its limit",
    ),
    (
        "{script: x, nodeNames: [a], podTemplate: {labels: {scriptrunner.io/uid: a}}}",
        "labels of scriptrunner.io are the operator's",
    ),
    (
        "{script: x, nodeNames: [a], podTemplate: {labels: {a.scriptrunner.io/b: a}}}",
        "labels of scriptrunner.io are the operator's",
    ),
    ("{script: x, nodeNames: [a], podTemplate: {labels: {'a b': a}}}", "is no key"),
    (
        "{script: x, nodeNames: [a], podTemplate: {annotations: {scriptrunner.io/shape: a}}}",
        "because nodes act on them",
    ),
    (
        "{script: x, nodeNames: [a], podTemplate: {annotations: {container.apparmor.security.beta.kubernetes.io/runner: a}}}",
        "because nodes act on them",
    ),
    (
        "{script: x, nodeNames: [a], podTemplate: {annotations: {io.kubernetes.cri-o.io/a: a}}}",
        "because nodes act on them",
    ),
    ("{script: x, nodeNames: [a], podTemplate: {annotations: {nri.io/a: a}}}", "because nodes act on them"),
    (
        "{script: x, nodeNames: [a], podTemplate: {annotations: {cpu-quota.crio.io: a}}}",
        "because nodes act on them",
    ),
    (
        "{script: x, nodeNames: [a], podTemplate: {annotations: {cpu-shared.crio.io/runner: a}}}",
        "because nodes act on them",
    ),
    (
        "{script: x, nodeNames: [a], podTemplate: {annotations: {seccomp-profile.kubernetes.cri-o.io: a}}}",
        "because nodes act on them",
    ),
    (
        "{script: x, nodeNames: [a], podTemplate: {annotations: {seccomp-profile.kubernetes.cri-o.io/POD: a}}}",
        "because nodes act on them",
    ),
    (
        "{script: x, nodeNames: [a], podTemplate: {annotations: {io.kubernetes.cri-o.Devices: a}}}",
        "because nodes act on them",
    ),
    (
        "{script: x, nodeNames: [a], podTemplate: {annotations: {io.kubernetes.cri.rdt-class: a}}}",
        "because nodes act on them",
    ),
    (
        "{script: x, nodeNames: [a], podTemplate: {annotations: {io.containers.trace-syscall: a}}}",
        "because nodes act on them",
    ),
    (
        "{script: x, nodeNames: [a], podTemplate: {annotations: {run.oci.keep_original_groups: a}}}",
        "because nodes act on them",
    ),
    (
        "{script: x, nodeNames: [a], podTemplate: {annotations: {org.systemd.property.DevicePolicy: a}}}",
        "because nodes act on them",
    ),
    (
        "{script: x, nodeNames: [a], podTemplate: {annotations: {io.katacontainers.config.hypervisor.kernel_params: a}}}",
        "because nodes act on them",
    ),
    (
        "{script: x, nodeNames: [a], podTemplate: {annotations: {k8s.v1.cni.cncf.io/networks: a}}}",
        "because nodes act on them",
    ),
    (
        "{script: x, nodeNames: [a], podTemplate: {annotations: {v1.multus-cni.io/default-network: a}}}",
        "because nodes act on them",
    ),
    (
        "{script: x, nodeNames: [a], podTemplate: {annotations: {dev.gvisor.spec.mount.a.source: a}}}",
        "because nodes act on them",
    ),
    (
        "{script: x, nodeNames: [a], podTemplate: {annotations: {example.com/io.kubernetes.cri-o.a: a}}}",
        "because nodes act on them",
    ),
    ("{script: x, nodeNames: [a], podTemplate: {volumes: [{name: a}]}}", "give exactly one of configMap"),
    ("{script: x, nodeNames: [a], podTemplate: {volumes: [{name: A, emptyDir: {}}]}}", "lower-case letters"),
    (
        "{script: x, nodeNames: [a], podTemplate: {volumes: [{name: scriptrunner-work, emptyDir: {}}]}}",
        "are the operator's",
    ),
    (
        "{script: x, nodeNames: [a], podTemplate: {volumes: [{name: a, emptyDir: {}}, {name: a, emptyDir: {}}]}}",
        "two have the name",
    ),
    (
        "{script: x, nodeNames: [a], podTemplate: {volumes: [{name: a, emptyDir: {sizeLimit: x}}]}}",
        "sizeLimit is",
    ),
    (
        "{script: x, nodeNames: [a], podTemplate: {volumes: [{name: a, secret: {secretName: s, defaultMode: 512}}]}}",
        "a mode is 512",
    ),
    (
        "{script: x, nodeNames: [a], podTemplate: {volumes: [{name: a, configMap: {name: s, items: [{key: a, path: ../b}]}}]}}",
        "has no ..",
    ),
    (
        "{script: x, nodeNames: [a], mode: Privileged, parallelism: 1, executionDeadlineSeconds: 1, podTemplate: {volumes: [{name: a, configMap: {name: s}}]}}",
        "is for mode Normal only",
    ),
    (
        "{script: x, nodeNames: [a], podTemplate: {volumeMounts: [{name: a, mountPath: /a}]}}",
        "there is no volume",
    ),
    (
        "{script: x, nodeNames: [a], podTemplate: {volumes: [{name: a, emptyDir: {}}], volumeMounts: [{name: a, mountPath: /}]}}",
        "must be an absolute path",
    ),
    (
        "{script: x, nodeNames: [a], podTemplate: {volumes: [{name: a, emptyDir: {}}], volumeMounts: [{name: a, mountPath: a}]}}",
        "must be an absolute path",
    ),
    (
        "{script: x, nodeNames: [a], podTemplate: {volumes: [{name: a, emptyDir: {}}], volumeMounts: [{name: a, mountPath: /a/}]}}",
        "must be an absolute path",
    ),
    (
        "{script: x, nodeNames: [a], podTemplate: {volumes: [{name: a, emptyDir: {}}], volumeMounts: [{name: a, mountPath: //a}]}}",
        "must be an absolute path",
    ),
    (
        "{script: x, nodeNames: [a], podTemplate: {volumes: [{name: a, emptyDir: {}}], volumeMounts: [{name: a, mountPath: /a/../b}]}}",
        "must be an absolute path",
    ),
    (
        "{script: x, nodeNames: [a], podTemplate: {volumes: [{name: a, emptyDir: {}}], volumeMounts: [{name: a, mountPath: /./a}]}}",
        "must be an absolute path",
    ),
    (
        "{script: x, nodeNames: [a], podTemplate: {volumes: [{name: a, emptyDir: {}}], volumeMounts: [{name: a, mountPath: '/a:b'}]}}",
        "must be an absolute path",
    ),
    (
        "{script: x, nodeNames: [a], podTemplate: {volumes: [{name: a, emptyDir: {}}], volumeMounts: [{name: a, mountPath: ''}]}}",
        "must be an absolute path",
    ),
    (
        "{script: x, nodeNames: [a], podTemplate: {volumes: [{name: a, emptyDir: {}}], volumeMounts: [{name: a, mountPath: /scriptrunner}]}}",
        "are the runner's own",
    ),
    (
        "{script: x, nodeNames: [a], podTemplate: {volumes: [{name: a, emptyDir: {}}], volumeMounts: [{name: a, mountPath: /scriptrunner/work/a}]}}",
        "are the runner's own",
    ),
    (
        "{script: x, nodeNames: [a], podTemplate: {volumes: [{name: a, emptyDir: {}}], volumeMounts: [{name: a, mountPath: /host}]}}",
        "are the runner's own",
    ),
    (
        "{script: x, nodeNames: [a], podTemplate: {volumes: [{name: a, emptyDir: {}}], volumeMounts: [{name: a, mountPath: /host/etc}]}}",
        "are the runner's own",
    ),
    (
        "{script: x, nodeNames: [a], podTemplate: {volumes: [{name: a, emptyDir: {}}], volumeMounts: [{name: a, mountPath: /dev}]}}",
        "are the runner's own",
    ),
    (
        "{script: x, nodeNames: [a], podTemplate: {volumes: [{name: a, emptyDir: {}}], volumeMounts: [{name: a, mountPath: /dev/shm}]}}",
        "are the runner's own",
    ),
    (
        "{script: x, nodeNames: [a], podTemplate: {volumes: [{name: a, emptyDir: {}}], volumeMounts: [{name: a, mountPath: /proc/a}]}}",
        "are the runner's own",
    ),
    (
        "{script: x, nodeNames: [a], podTemplate: {volumes: [{name: a, emptyDir: {}}], volumeMounts: [{name: a, mountPath: /sys/fs}]}}",
        "are the runner's own",
    ),
    (
        "{script: x, nodeNames: [a], podTemplate: {volumes: [{name: a, emptyDir: {}}], volumeMounts: [{name: a, mountPath: /tmp}]}}",
        "are the runner's own",
    ),
    (
        "{script: x, nodeNames: [a], podTemplate: {volumes: [{name: a, emptyDir: {}}], volumeMounts: [{name: a, mountPath: /a}, {name: a, mountPath: /a}]}}",
        "two have the mountPath",
    ),
    (
        "{script: x, nodeNames: [a], podTemplate: {volumes: [{name: a, emptyDir: {}}], volumeMounts: [{name: a, mountPath: /a, subPath: /b}]}}",
        "must be relative",
    ),
    (
        "{script: x, nodeNames: [a], podTemplate: {volumes: [{name: a, emptyDir: {}}], volumeMounts: [{name: a, mountPath: /a, subPath: b/..}]}}",
        "must be relative",
    ),
];

/// Specs that are taken.
const ACCEPTED: [&str; 4] = [
    "{script: x, nodeNames: [a], podTemplate: {volumes: [{name: a, emptyDir: {}}], volumeMounts: [{name: a, mountPath: /tmp/a}, {name: a, mountPath: /scriptrunners, subPath: a..b}, {name: a, mountPath: /devices}]}}",
    "{script: x, nodeNames: [a], mode: Privileged, parallelism: 1, executionDeadlineSeconds: 1, image: 'a@sha256:0000000000000000000000000000000000000000000000000000000000000000', hostPID: true, dependencies: {packages: [jq]}, podTemplate: {volumes: [{name: a, secret: {secretName: s}}]}}",
    "{script: x, nodeNames: [a], podTemplate: {labels: {kubernetes.io/a: b, notscriptrunner.io/a: ''}, annotations: {cluster-autoscaler.kubernetes.io/safe-to-evict: 'false', mykubernetes.io/a: '', mycrio.io: a, prun.oci.x: a, example.io/kubernetes.iox: a, a: b}}}",
    "{script: x, nodeNames: [a], resources: {requests: {memory: 1Gi, cpu: '1e3'}, limits: {memory: 1024Mi, cpu: '1E30'}}}",
];

#[test]
fn rules_of_pods_hold_for_objects_that_are_older() {
    for (yaml, word) in REFUSED {
        let refusal = validate(&spec(yaml), &Sources::default()).expect_err(yaml);
        assert_eq!(refusal.reason, ConditionReason::SpecInvalid, "{yaml}");
        assert!(refusal.message.contains(word), "{yaml}: {}", refusal.message);
        assert!(!refusal.message.contains("secret@"), "a password is nothing for a status");
    }
    for yaml in ACCEPTED {
        assert!(
            validate(&spec(yaml), &Sources::default()).is_ok(),
            "{yaml}: {:?}",
            validate(&spec(yaml), &Sources::default())
        );
    }
}

#[test]
fn of_outputs_only_digests_are_kept_if_that_is_wanted() {
    let limits = |output: &str| {
        let yaml = format!("{{script: x, nodeNames: [a], output: {output}}}");
        validate(&spec(&yaml), &Sources::default()).unwrap().limits
    };
    let digest_only = limits("{keep: DigestOnly, stdoutLimitBytes: 9}");
    assert_eq!((digest_only.stdout_bytes, digest_only.stderr_bytes), (0, 0));
    let full = limits("{keep: Full, stdoutLimitBytes: 9}");
    assert_eq!((full.stdout_bytes, full.stderr_bytes), (9, 4096));
}
