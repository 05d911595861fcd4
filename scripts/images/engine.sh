# shellcheck shell=bash
# Turns a context into an image, with whichever tool is there.
# Must not know what is in the context.

choose_engine() {
    if command -v buildah >/dev/null; then
        engine=buildah
    elif command -v docker >/dev/null && docker info >/dev/null 2>&1; then
        engine=docker
    else
        die "neither buildah nor a running docker is here, which build images: $(from_system buildah)."
    fi
}

# make_image NAME TAG ARGUMENT...: from images/Containerfile.NAME to an archive NAME.tar, whole or not at all
make_image() {
    local name=$1 tag=$2 archive began=$SECONDS
    archive=$images/$name.tar
    shift 2
    say "$tag: with $engine ..."
    rm -f "$archive.new"
    case $engine in
        buildah)
            buildah build --quiet --isolation chroot "$@" --file "$root/images/Containerfile.$name" --tag "$tag" "$context" >/dev/null
            buildah push --quiet "$tag" "oci-archive:$archive.new:$tag"
            ;;
        docker)
            docker build --quiet "$@" --file "$root/images/Containerfile.$name" --tag "$tag" "$context" >/dev/null
            docker save --output "$archive.new" "$tag"
            ;;
    esac
    mv "$archive.new" "$archive"
    say "  $(du -h "$archive" | cut -f 1) in $archive after $((SECONDS - began)) s."
}

# The public base where it can be pulled; else the same Debian, made from its own packages.
base() {
    local public=${BASE:-docker.io/library/debian:bookworm-slim} made=localhost/debian:bookworm-slim
    if [[ -n ${BASE:-} ]] || has_image "$public" || "$engine" pull --quiet "$public" >/dev/null 2>&1; then
        echo "$public"
        return
    fi
    if ! has_image "$made"; then
        say "$public cannot be pulled; $made is made by debootstrap ..." >&2
        make_base "$made" >&2
    fi
    echo "$made"
}

has_image() {
    case $engine in
        buildah) buildah images --quiet "$1" >/dev/null 2>&1 ;;
        docker) docker image inspect "$1" >/dev/null 2>&1 ;;
    esac
}

make_base() {
    need debootstrap 'makes a Debian to build the trainer on' "$(from_system debootstrap)"
    local folder=$context.base
    debootstrap --variant=minbase --include=ca-certificates bookworm "$folder" >"$images/debootstrap.log" 2>&1 ||
        die "debootstrap cannot make a Debian; its own words are in $images/debootstrap.log."
    rm -rf "$folder"/var/cache/apt/archives/*.deb "$folder"/var/lib/apt/lists/*
    printf 'FROM scratch\nCOPY . /\nCMD ["bash"]\n' >"$images/Containerfile.base"
    case $engine in
        buildah) buildah build --quiet --file "$images/Containerfile.base" --tag "$1" "$folder" >/dev/null ;;
        docker) docker build --quiet --file "$images/Containerfile.base" --tag "$1" "$folder" >/dev/null ;;
    esac
    rm -rf "$folder"
}
