# shellcheck shell=bash
# Which programs a part of a cluster is made of, and where each comes from.
# Must not build anything.

# The API server is enough to test what only talks to it; a node runs pods, a pretended one says that it does.
programs_of() {
    case $1 in
        control-plane) echo etcd kube-apiserver kubectl ;;
        node) echo kube-controller-manager kube-scheduler kube-proxy kubelet coredns ;;
        helm) echo helm ;;
        kstatus) echo kstatus ;;
        pretended) echo kube-controller-manager kwok ;;
        *) die "there is no part $1; the parts are control-plane, node, helm, kstatus and pretended." ;;
    esac
}

# The folder below scripts/cluster whose go.mod and go.sum pin a program.
module_of() {
    case $1 in
        coredns | helm | kstatus | kwok) echo "$1" ;;
        *) echo kubernetes ;;
    esac
}

package_of() {
    case $1 in
        etcd) echo go.etcd.io/etcd/server/v3 ;;
        coredns) echo github.com/coredns/coredns ;;
        helm) echo helm.sh/helm/v4/cmd/helm ;;
        kstatus) echo . ;;
        kwok) echo sigs.k8s.io/kwok/cmd/kwok ;;
        *) echo "k8s.io/kubernetes/cmd/$1" ;;
    esac
}

# Kubernetes calls itself v0.0.0 otherwise, and kubectl refuses to talk to it. Others take theirs from the module.
linker_flags_of() {
    local version major minor package=k8s.io/component-base/version
    [[ $(package_of "$1") == k8s.io/* ]] || return 0
    version=$(awk '$1 == "k8s.io/kubernetes" && $2 ~ /^v/ { print $2 }' "$here/kubernetes/go.mod")
    IFS=. read -r major minor _ <<<"${version#v}"
    echo "-X $package.gitVersion=$version -X $package.gitMajor=$major -X $package.gitMinor=$minor"
}
