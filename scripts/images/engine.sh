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

# make_image FILE NAME TAG ARGUMENT...: from images/Containerfile.FILE to an archive NAME.tar, whole or not at all
make_image() {
    local file=$root/images/Containerfile.$1 archive=$images/$2.tar tag=$3 inputs before began=$SECONDS
    shift 3
    inputs=$(inputs_of "$file" "$tag" "$@")
    if [[ -f $archive && -f $archive.inputs && $(<"$archive.inputs") == "$inputs" ]]; then
        say "$tag: $archive has it already."
        return
    fi
    say "$tag: with $engine ..."
    rm -f "$archive.new" "$archive.inputs"
    before=$(id_of "$tag")
    case $engine in
        buildah)
            buildah build --quiet --isolation chroot "$@" "${labels[@]}" --file "$file" \
                --tag "$tag" "$context" >/dev/null
            # This kind of archive is not compressed, which would take longer than it saves: it goes no further than to a node here.
            buildah push --quiet "$tag" "docker-archive:$archive.new:$tag"
            ;;
        docker)
            docker build --quiet "$@" "${labels[@]}" --file "$file" --tag "$tag" "$context" >/dev/null
            docker save --output "$archive.new" "$tag"
            ;;
    esac
    mv "$archive.new" "$archive"
    echo "$inputs" >"$archive.inputs"
    remove_replaced "$before" "$tag"
    say "  $(du -h "$archive" | cut -f 1) in $archive after $((SECONDS - began)) s."
}

# inputs_of FILE TAG ARGUMENT...: what an image is made of. Not the revision: the same program is not packed anew for
# each commit.
inputs_of() {
    {
        printf '%s\n' "$engine" "${@:2}"
        sha256sum <"$1"
        (cd "$context" && find . -type f -print0 | sort --zero-terminated | xargs --null sha256sum)
    } | sha256sum | cut -d ' ' -f 1
}

id_of() {
    "$engine" images --quiet --no-trunc "$1" 2>/dev/null || true
}

# remove_replaced ID TAG: what the tag named before, if that is another image
remove_replaced() {
    [[ -z $1 || $1 == "$(id_of "$2")" ]] || "$engine" rmi "$1" >/dev/null 2>&1 || true
}

# The public base where it can be pulled; else the same Debian, made from its own packages.
base() {
    local public=${BASE:-docker.io/library/debian:bookworm-slim} made=localhost/debian:bookworm-slim
    if [[ -n ${BASE:-} ]] || has_image "$public"; then
        echo "$public"
    elif has_image "$made"; then
        echo "$made"
    elif "$engine" pull --quiet "$public" >/dev/null 2>&1; then
        echo "$public"
    else
        say "$public cannot be pulled; $made is made by debootstrap ..." >&2
        make_base "$made" >&2
        echo "$made"
    fi
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
