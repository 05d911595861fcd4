//! Resources that break one rule each, and resources near the rules that keep them all.
//! Must not know who judges them: the rules are evaluated here and by the API server, and both say the same.

/// The smallest resource that loads.
pub(crate) const SMALLEST: &str = "
apiVersion: fedtune.io/v1alpha1
kind: FederatedFineTune
metadata: {name: mail}
spec:
  framework: {fedLLM: {}}
  model: {source: {path: model}}
  data: {source: {path: data}}
";

const KD: &str = "framework={kdFedLLM: {}}";
const PUBLIC: &str = "data.public={examples: 8}";
const SPLIT: &str = "framework={splitFedLLM: {}}";

/// A spec that breaks one rule, as overrides of [`SMALLEST`], and the sentence it gives.
pub(crate) const BROKEN: &[(&[&str], &str)] = &[
    // Between parts of the spec.
    (
        &[KD],
        "spec.data.public: kdFedLLM exchanges logits on a public set; set data.public, for example {examples: 128}",
    ),
    (
        &["data.systemPrompt=Be kind."],
        "spec.model.task: prompts, messages and systemPrompt are for language models; set model.task: CausalLM, or name columns.text and columns.label",
    ),
    (
        &["model.task=CausalLM", "data.columns={prompt: a}"],
        "spec.data: a language model learns to answer; set columns.response, and leave it out for a public set of bare prompts alone",
    ),
    (
        &["model.task=CausalLM", "data.columns={response: a}"],
        "spec.data.columns: a response answers a prompt; set columns.prompt too, or columns.messages alone",
    ),
    (
        &["model.task=CausalLM", "data.columns={text: a, choices: b}"],
        "spec.data.columns: choices are answers to choose the response from; set columns.response too",
    ),
    (
        &["model.task=CausalLM", "data.columns={prompt: a, response: b, messages: c}"],
        "spec.data.columns: messages hold prompts and responses; set columns.messages alone, or columns.prompt and columns.response",
    ),
    (
        &["clients.groups=[{name: a, cutLayer: 3}]"],
        "spec.clients.groups: a group's cutLayer is where splitFedLLM cuts the model; leave it out in other frameworks",
    ),
    (
        &["framework={splitFedLLM: {variant: V2, cutLayer: 2}}", "clients.groups=[{name: a, cutLayer: 3}]"],
        "spec.clients.groups: variant V2 has one server half, so every group is cut where framework.splitFedLLM.cutLayer says; leave the groups' cutLayer out or set variant: V1",
    ),
    (
        &["clients.groups=[{name: a, rank: 4}]"],
        "spec.clients.groups: adapters of different ranks can be combined by fedLLM with aggregation FLoRA or FlexLoRA, and need no combining in kdFedLLM and localOnly; elsewhere leave the groups' rank out",
    ),
    (
        &["framework.fedLLM.aggregation=FFALoRA", "clients.groups=[{name: a, rank: 4}]"],
        "spec.clients.groups: adapters of different ranks can be combined by fedLLM with aggregation FLoRA or FlexLoRA, and need no combining in kdFedLLM and localOnly; elsewhere leave the groups' rank out",
    ),
    (
        &["framework.fedLLM.aggregation=FedExLoRA", "clients.groups=[{name: a, rank: 4}]"],
        "spec.clients.groups: adapters of different ranks can be combined by fedLLM with aggregation FLoRA or FlexLoRA, and need no combining in kdFedLLM and localOnly; elsewhere leave the groups' rank out",
    ),
    (
        &["clients.groups=[{name: a, placement: External}]"],
        "spec.server: an External group dials the server from outside; set server.expose, for example {type: LoadBalancer}",
    ),
    (
        &["clients.groups=[{name: a, replicas: 2}, {name: b, replicas: 3}]", "participation.minClients=6"],
        "spec.participation.minClients is 6; there are fewer clients than minClients; it is at most the replicas of all groups together",
    ),
    (
        &["ttlSecondsAfterFinished=60"],
        "spec.ttlSecondsAfterFinished is 60; deleting the resource deletes the adapter with its volume; set output before ttlSecondsAfterFinished",
    ),
    (
        &["resumeFrom.uid=0b6e7a1c-2f6b-4d0e-9c3a-5a1f2e3d4c5b"],
        "spec.resumeFrom: the checkpoint to resume from lies in a claim; set server.checkpoint.existingClaim",
    ),
    (
        &["metadata.name=Mail"],
        "metadata.name has at most 34 small letters, digits and -, begins with a letter and ends with a letter or a digit",
    ),
    (
        &["metadata.name=a-name-of-thirty-five-characters-abc"],
        "metadata.name has at most 34 small letters, digits and -, begins with a letter and ends with a letter or a digit",
    ),
    // Framework.
    (&["framework={}"], "spec.framework: set exactly one of fedLLM, kdFedLLM, splitFedLLM, central, localOnly"),
    (
        &["framework={fedLLM: {}, central: {}}"],
        "spec.framework: set exactly one of fedLLM, kdFedLLM, splitFedLLM, central, localOnly",
    ),
    (
        &["framework.fedLLM={upload: Gradients, aggregation: FLoRA}"],
        "spec.framework.fedLLM: gradients are averaged by FedAvg; the other aggregations combine parameters, so set upload: Parameters",
    ),
    (
        &["framework.fedLLM={upload: Gradients, proximalMu: '0.1'}"],
        "spec.framework.fedLLM: proximalMu restrains local steps and upload: Gradients takes none; leave it out or set upload: Parameters",
    ),
    (&["framework.fedLLM.proximalMu=0"], "spec.framework.fedLLM.proximalMu is \"0\"; FedProx's mu is a number above 0"),
    (
        &["framework.fedLLM={upload: Gradients, serverOptimizer: {}}"],
        "spec.framework.fedLLM.serverOptimizer: set exactly one of fedAvgM, fedAdam, fedYogi, adamW, sgd",
    ),
    (
        &["framework.fedLLM.serverOptimizer={adamW: {}}"],
        "spec.framework.fedLLM: adamW and sgd step along gradients; with upload: Parameters set serverOptimizer to fedAvgM, fedAdam or fedYogi",
    ),
    (
        &["framework.fedLLM={upload: Gradients, serverOptimizer: {fedYogi: {}}}"],
        "spec.framework.fedLLM: fedAvgM, fedAdam and fedYogi step along the mean of parameters; with upload: Gradients set serverOptimizer to adamW or sgd",
    ),
    (
        &["framework.fedLLM={aggregation: FLoRA, serverOptimizer: {fedAdam: {}}}"],
        "spec.framework.fedLLM: a server optimizer steps along the mean of the matrices, which FedAvg and FFALoRA take; leave it out with the other aggregations",
    ),
    (
        &["framework.fedLLM.serverOptimizer={fedAvgM: {momentum: '1'}}"],
        "spec.framework.fedLLM.serverOptimizer.fedAvgM.momentum is \"1\"; a momentum is a number from 0 up to, but not, 1",
    ),
    (
        &["framework.fedLLM.serverOptimizer={fedAdam: {tau: '0'}}"],
        "spec.framework.fedLLM.serverOptimizer.fedAdam.tau is \"0\"; tau is a number above 0",
    ),
    (
        &["framework={kdFedLLM: {temperature: '0'}}", PUBLIC],
        "spec.framework.kdFedLLM.temperature is \"0\"; a temperature is a number above 0",
    ),
    (
        &["framework={kdFedLLM: {lambda: '1.5'}}", PUBLIC],
        "spec.framework.kdFedLLM.lambda is \"1.5\"; lambda is a number from 0 to 1",
    ),
    (
        &["framework={kdFedLLM: {distillationSteps: 0}}", PUBLIC],
        "spec.framework.kdFedLLM.distillationSteps is 0; a number of distillation steps is a whole number from 1 to 100000",
    ),
    (
        &["framework={kdFedLLM: {logits: {topK: 16, byteBudget: 1M}}}", PUBLIC],
        "spec.framework.kdFedLLM.logits: set at most one of topK, byteBudget",
    ),
    (
        &["framework={kdFedLLM: {logits: {topK: 0}}}", PUBLIC],
        "spec.framework.kdFedLLM.logits.topK is 0; k is a whole number from 1 to 1000000",
    ),
    (
        &["framework={splitFedLLM: {cutLayer: 0}}"],
        "spec.framework.splitFedLLM.cutLayer is 0; a cut layer is a whole number from 1 to 999",
    ),
    // Model, tuning.
    (&["model.source={}"], "spec.model.source: set exactly one of path, huggingFace, http, s3"),
    (
        &["model.source={path: a, http: {url: 'https://example.com/a'}}"],
        "spec.model.source: set exactly one of path, huggingFace, http, s3",
    ),
    (
        &["model.source={huggingFace: {repo: 'a/b/c'}}"],
        "spec.model.source.huggingFace.repo is \"a/b/c\"; a repository is owner/name, as in HuggingFaceTB/SmolLM2-135M",
    ),
    (
        &["model.source={huggingFace: {repo: a/b, tokenSecretRef: {name: Hub, key: token}}}"],
        "spec.model.source.huggingFace.tokenSecretRef.name is \"Hub\"; an object's name has small letters, digits, - and ., and begins and ends with a letter or a digit",
    ),
    (
        &["model.source={huggingFace: {repo: a/b, tokenSecretRef: {name: hub, key: a b}}}"],
        "spec.model.source.huggingFace.tokenSecretRef.key is \"a b\"; a key of a Secret has letters, digits, -, _ and .",
    ),
    (
        &["model.source={http: {url: 'ftp://example.com/a'}}"],
        "spec.model.source.http.url is \"ftp://example.com/a\"; an address begins with http:// or https:// and holds no space",
    ),
    (
        &["model.source={http: {url: 'https://example.com/a', sha256: abc}}"],
        "spec.model.source.http.sha256 is \"abc\"; a SHA-256 is 64 digits of 0 to 9 and a to f",
    ),
    (
        &["model.source={s3: {url: bucket/a}}"],
        "spec.model.source.s3.url is \"bucket/a\"; an S3 address is s3://bucket/prefix; a bucket has 3 to 63 small letters, digits, . and -",
    ),
    (
        &["model.source={s3: {url: 's3://bucket/a', endpoint: minio}}"],
        "spec.model.source.s3.endpoint is \"minio\"; an endpoint begins with http:// or https:// and holds no space",
    ),
    (
        &["model.source={s3: {url: 's3://bucket/a', accessKeyIdSecretRef: {name: s3, key: id}}}"],
        "spec.model.source.s3: set both accessKeyIdSecretRef and secretAccessKeySecretRef, or neither",
    ),
    (&["tuning.lora.rank=0"], "spec.tuning.lora.rank is 0; a LoRA rank is a whole number from 1 to 1024"),
    (&["tuning.lora.rank=-8"], "spec.tuning.lora.rank is -8; a LoRA rank is a whole number from 1 to 1024"),
    (&["tuning.lora.rank=1025"], "spec.tuning.lora.rank is 1025; a LoRA rank is a whole number from 1 to 1024"),
    (&["tuning.lora.alpha=0"], "spec.tuning.lora.alpha is \"0\"; alpha is a number above 0"),
    (
        &["tuning.lora.alpha=-1"],
        "spec.tuning.lora.alpha is \"-1\"; a decimal number is digits with an optional fraction and exponent and no sign, as in \"16\", \"0.5\" or \"5e-4\"",
    ),
    (&["tuning.lora.dropout=1"], "spec.tuning.lora.dropout is \"1\"; a dropout is a number from 0 up to, but not, 1"),
    (
        &["tuning.lora.targetModules=[q+proj]"],
        "spec.tuning.lora.targetModules: a module's name has letters, digits, _, - and ., as in q_proj, attention.self.query or all-linear",
    ),
    (&["tuning.lora.targetModules=[q, q]"], "spec.tuning.lora.targetModules: each module is named once"),
    // Data.
    (
        &["data.labelMap={spam-1: spam}"],
        "spec.data: labelMap gives folders their labels; set format: Folders or leave it out",
    ),
    (
        &["data.source={huggingFace: {repo: a/b}}", "data.partition={preSplit: {}}"],
        "spec.data: preSplit reads <path>/<group>/<index>, so source must be a path",
    ),
    (
        &["clients.groups=[{name: a, data: {source: {huggingFace: {repo: a/b}}, partition: {preSplit: {}}}}]"],
        "spec.clients.groups[0].data: preSplit reads <path>/<group>/<index>, so source must be a path",
    ),
    (
        &["data.labels=[spam]"],
        "spec.data.labels: a classifier needs at least 2 labels; leave labels out to take those of the data",
    ),
    (
        &["data.partition={iid: {}, preSplit: {}}"],
        "spec.data.partition: set exactly one of iid, dirichlet, byColumn, preSplit",
    ),
    (
        &["data.partition={dirichlet: {alpha: '0'}}"],
        "spec.data.partition.dirichlet.alpha is \"0\"; a concentration is a number above 0",
    ),
    (&["data.evaluation={}"], "spec.data.evaluation: set at least one of examples, source"),
    (
        &["data.evaluation={examples: 5, format: CSV}"],
        "spec.data.evaluation: format, columns and labelMap describe a source of its own; set source, or leave them out to hold out examples of data.source",
    ),
    (
        &["data.evaluation={examples: 0}"],
        "spec.data.evaluation.examples is 0; a number of examples is a whole number from 1 to 10000000",
    ),
    // Training, participation, stop.
    (&["training={localSteps: 5, localEpochs: 1}"], "spec.training: set at most one of localSteps, localEpochs"),
    (&["training.rounds=0"], "spec.training.rounds is 0; a number of rounds is a whole number from 1 to 100000"),
    (
        &["training.localSteps=0"],
        "spec.training.localSteps is 0; a number of local steps is a whole number from 1 to 1000000",
    ),
    (
        &["training.localEpochs=0"],
        "spec.training.localEpochs is 0; a number of local epochs is a whole number from 1 to 1000",
    ),
    (&["training.batchSize=0"], "spec.training.batchSize is 0; a batch size is a whole number from 1 to 65536"),
    (
        &["training.gradientAccumulation=0"],
        "spec.training.gradientAccumulation is 0; gradientAccumulation is a whole number from 1 to 4096",
    ),
    (
        &["training.maxSequenceLength=0"],
        "spec.training.maxSequenceLength is 0; a sequence length is a whole number from 1 to 131072",
    ),
    (&["training.threads=0"], "spec.training.threads is 0; a number of threads is a whole number from 1 to 256"),
    (&["training.optimizer={adamW: {}, sgd: {}}"], "spec.training.optimizer: set exactly one of adamW, sgd"),
    (
        &["training.optimizer={adamW: {learningRate: '0'}}"],
        "spec.training.optimizer.adamW.learningRate is \"0\"; a learning rate is a number above 0",
    ),
    (
        &["training.optimizer={adamW: {beta1: '1'}}"],
        "spec.training.optimizer.adamW.beta1 is \"1\"; beta1 is a number from 0 up to, but not, 1",
    ),
    (
        &["training.optimizer={adamW: {beta2: '1'}}"],
        "spec.training.optimizer.adamW.beta2 is \"1\"; beta2 is a number from 0 up to, but not, 1",
    ),
    (
        &["training.optimizer={adamW: {epsilon: '0'}}"],
        "spec.training.optimizer.adamW.epsilon is \"0\"; epsilon is a number above 0",
    ),
    (
        &["training.optimizer={sgd: {momentum: '1'}}"],
        "spec.training.optimizer.sgd.momentum is \"1\"; a momentum is a number from 0 up to, but not, 1",
    ),
    (&["training.schedule={}"], "spec.training.schedule: set exactly one of constant, linear, cosine"),
    (
        &["training.schedule={cosine: {warmupSteps: -1}}"],
        "spec.training.schedule.cosine.warmupSteps is -1; a number of warm-up steps is a whole number from 0 to 1000000000",
    ),
    (
        &["participation.minClients=0"],
        "spec.participation.minClients is 0; minClients is a whole number from 1 to 999900",
    ),
    (
        &["participation.fraction=0"],
        "spec.participation.fraction is \"0\"; a fraction is a number above 0 and at most 1",
    ),
    (
        &["participation.roundTimeout=2 hours"],
        "spec.participation.roundTimeout is \"2 hours\"; a span of time is hours, minutes and seconds and not zero, as in 90s, 30m or 1h30m",
    ),
    (
        &["participation.quorumTimeout=0s"],
        "spec.participation.quorumTimeout is \"0s\"; a span of time is hours, minutes and seconds and not zero, as in 90s, 30m or 1h30m",
    ),
    (&["stop.targetAccuracy=90"], "spec.stop.targetAccuracy is \"90\"; an accuracy is a number above 0 and at most 1"),
    (
        &["stop.maxBytes=10GB"],
        "spec.stop.maxBytes is \"10GB\"; a number of bytes is a whole number above 0 with an optional unit, as in 500M or 10Gi",
    ),
    (
        &["stop.maxBytes=0"],
        "spec.stop.maxBytes is 0; a number of bytes is a whole number above 0 with an optional unit, as in 500M or 10Gi",
    ),
    (&["stop.maxClientFlops=0"], "spec.stop.maxClientFlops is \"0\"; a number of operations is a number above 0"),
    (&["stop.patience=0"], "spec.stop.patience is 0; patience is a whole number from 1 to 100000"),
    (&["seed=-1"], "spec.seed is -1; a seed is a whole number from 0 to 9007199254740992"),
    (&["seed=9007199254740993"], "spec.seed is 9007199254740993; a seed is a whole number from 0 to 9007199254740992"),
    // Clients.
    (
        &["clients.groups=[{name: silo_a}]"],
        "spec.clients.groups[0].name is \"silo_a\"; a group's name has at most 12 small letters, digits and -, begins with a letter and ends with a letter or a digit",
    ),
    (
        &["clients.groups=[{name: thirteen-char}]"],
        "spec.clients.groups[0].name is \"thirteen-char\"; a group's name has at most 12 small letters, digits and -, begins with a letter and ends with a letter or a digit",
    ),
    (
        &["clients.groups=[{name: server}]"],
        "spec.clients.groups[0].name is \"server\"; server is the server's own name; give the group another one",
    ),
    (
        &["clients.groups=[{name: a, replicas: 10000}]"],
        "spec.clients.groups[0].replicas is 10000; a number of replicas is a whole number from 1 to 9999",
    ),
    (
        &["clients.groups=[{name: a, rank: 0}]", KD, PUBLIC],
        "spec.clients.groups[0].rank is 0; a LoRA rank is a whole number from 1 to 1024",
    ),
    (
        &["clients.groups=[{name: a, cutLayer: 0}]", SPLIT],
        "spec.clients.groups[0].cutLayer is 0; a cut layer is a whole number from 1 to 999",
    ),
    (
        &["clients.groups=[{name: a, maxExamples: 0}]"],
        "spec.clients.groups[0].maxExamples is 0; a number of examples is a whole number from 1 to 1000000000",
    ),
    (
        &["clients.groups=[{name: a, placement: External, template: {}}]", "server.expose={}"],
        "spec.clients.groups[0]: an External group has no pods of ours; leave template and state out",
    ),
    // The cluster's side.
    (
        &["experiment=-mail"],
        "spec.experiment is \"-mail\"; an experiment is a label value: letters, digits, -, _ and ., a letter or digit at both ends",
    ),
    (
        &["server.checkpoint={volumeClaim: {}, existingClaim: a}"],
        "spec.server.checkpoint: set at most one of volumeClaim, existingClaim",
    ),
    (
        &["server.checkpoint.everyRounds=0"],
        "spec.server.checkpoint.everyRounds is 0; a number of rounds is a whole number from 1 to 100000",
    ),
    (
        &["server.expose={hosts: ['https://example.com']}"],
        "spec.server.expose.hosts: a host is a DNS name or an IP address, without scheme and port",
    ),
    (
        &["server.expose={loadBalancerClass: a b}"],
        "spec.server.expose.loadBalancerClass is \"a b\"; a load balancer class is a label, as in example.com/internal",
    ),
    (&["output={}"], "spec.output: set at least one of volume, s3"),
    (
        &["output={volume: {existingClaim: a, path: ../b}}"],
        "spec.output.volume.path is \"../b\"; a folder of the claim is given from the claim's root, without a leading / and without ..",
    ),
    (
        &["image=a b"],
        "spec.image is \"a b\"; an image is a reference without spaces, as in registry.example.com/fedtune:0.1.0",
    ),
    (&["attempt=100"], "spec.attempt is 100; an attempt is a whole number from 0 to 99"),
    (
        &["activeDeadlineSeconds=0"],
        "spec.activeDeadlineSeconds is 0; activeDeadlineSeconds is a whole number from 1 to 31536000",
    ),
    (
        &["ttlSecondsAfterFinished=-1", "output={volume: {existingClaim: a}}"],
        "spec.ttlSecondsAfterFinished is -1; ttlSecondsAfterFinished is a whole number from 0 to 31536000",
    ),
    (&["cache={}"], "spec.cache: set exactly one of volumeClaim, existingClaim"),
    (
        &["resumeFrom.uid=abc", "server.checkpoint.existingClaim=a"],
        "spec.resumeFrom.uid is \"abc\"; a uid is 32 hexadecimal digits in five parts, as kubectl get -o yaml shows it",
    ),
    (
        &["egress=[{cidr: 10.0.0.0}]"],
        "spec.egress[0].cidr is \"10.0.0.0\"; a network is an address and a prefix length, as in 10.0.0.0/8",
    ),
    (&["egress=[{cidr: 10.0.0.0/8, ports: [0]}]"], "spec.egress[0].ports: a port is a whole number from 1 to 65535"),
    (
        &["metrics.maxClientSeries=-1"],
        "spec.metrics.maxClientSeries is -1; a number of series is a whole number from 0 to 10000",
    ),
];

/// Specs near the rules that keep them.
pub(crate) const KEPT: &[&[&str]] = &[
    &[KD, PUBLIC],
    &[SPLIT, "clients.groups=[{name: a, cutLayer: 3}, {name: b, cutLayer: 5}]"],
    &["framework={splitFedLLM: {variant: V2, cutLayer: 2}}", "clients.groups=[{name: a, cutLayer: 2}]"],
    &["framework.fedLLM.aggregation=FLoRA", "clients.groups=[{name: a, rank: 4}, {name: b, rank: 16}]"],
    &["framework.fedLLM.serverOptimizer={fedAvgM: {}}"],
    &["framework.fedLLM={aggregation: FFALoRA, serverOptimizer: {fedAdam: {}}}"],
    &["framework.fedLLM={upload: Gradients, serverOptimizer: {sgd: {}}}"],
    &[KD, PUBLIC, "clients.groups=[{name: a, rank: 4}]"],
    &["clients.groups=[{name: a, placement: External}]", "server.expose={}"],
    &["participation.minClients=2"],
    &["ttlSecondsAfterFinished=60", "output={s3: {url: 's3://bucket/a'}}"],
    &["tuning.lora.dropout=0"],
    &["tuning.lora.rank=1024"],
    &["stop.maxBytes=10Gi"],
    &["stop.maxBytes=1000000"],
    &["stop.maxClientFlops=1e15"],
    &["participation.roundTimeout=1h30m"],
    &["data.partition={preSplit: {}}"],
    &["data.evaluation={source: {path: held-out}, format: JSONL}"],
    &["data.labels=[ham, spam]"],
    &["metadata.name=a-name-of-thirty-four-characters-a"],
    &["clients.groups=[{name: twelve-chars}]"],
    &["seed=9007199254740992"],
];
