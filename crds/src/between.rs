//! Rules between parts of the spec, one function each: what one part asks of another.
//! Must not judge one field alone: such a rule stands beside its field.

use kube::core::Rule;

/// `field` is where the API server, and so the reader, looks for the mistake.
fn rule(condition: &str, field: &str, sentence: &str) -> Rule {
    Rule::new(condition).field_path(field).message(sentence)
}

/// KD-FedLLM cannot exchange logits without texts that every party sees.
pub(crate) fn distillation_needs_a_public_set() -> Rule {
    rule(
        "!has(self.framework.kdFedLLM) || has(self.data.public)",
        ".data.public",
        "kdFedLLM exchanges logits on a public set; set data.public, for example {examples: 128}",
    )
}

/// A classifier has nothing to say.
pub(crate) fn only_language_models_answer() -> Rule {
    rule(
        "self.model.task == 'CausalLM' || !(has(self.data.columns.prompt) || has(self.data.columns.messages) \
         || has(self.data.systemPrompt))",
        ".model.task",
        "prompts, messages and systemPrompt are for language models; set model.task: CausalLM, or name columns.text and \
         columns.label",
    )
}

/// Only Split-FedLLM has a cut.
pub(crate) fn only_split_cuts_groups() -> Rule {
    rule(
        "has(self.framework.splitFedLLM) || self.clients.groups.all(group, !has(group.cutLayer))",
        ".clients.groups",
        "a group's cutLayer is where splitFedLLM cuts the model; leave it out in other frameworks",
    )
}

/// One server half cannot begin at two blocks.
pub(crate) fn one_server_half_has_one_cut() -> Rule {
    rule(
        "!has(self.framework.splitFedLLM) || self.framework.splitFedLLM.variant == 'V1' \
         || self.clients.groups.all(group, !has(group.cutLayer) || group.cutLayer == self.framework.splitFedLLM.cutLayer)",
        ".clients.groups",
        "variant V2 has one server half, so every group is cut where framework.splitFedLLM.cutLayer says; \
         leave the groups' cutLayer out or set variant: V1",
    )
}

/// A mean of matrices of different shapes does not exist.
pub(crate) fn unequal_ranks_need_a_way_to_combine() -> Rule {
    rule(
        "has(self.framework.kdFedLLM) || has(self.framework.localOnly) \
         || (has(self.framework.fedLLM) && self.framework.fedLLM.aggregation in ['FLoRA', 'FlexLoRA']) \
         || self.clients.groups.all(group, !has(group.rank) || group.rank == self.tuning.lora.rank)",
        ".clients.groups",
        "adapters of different ranks can be combined by fedLLM with aggregation FLoRA or FlexLoRA, \
         and need no combining in kdFedLLM and localOnly; elsewhere leave the groups' rank out",
    )
}

/// An external client must be able to reach the server.
pub(crate) fn external_groups_need_an_open_server() -> Rule {
    rule(
        "self.clients.groups.all(group, group.placement == 'Managed') || has(self.server.expose)",
        ".server",
        "an External group dials the server from outside; set server.expose, for example {type: LoadBalancer}",
    )
}

/// A quorum above the number of clients is never reached.
pub(crate) fn the_quorum_can_be_reached() -> Rule {
    rule(
        "!has(self.participation.minClients) \
         || self.participation.minClients <= self.clients.groups.map(group, group.replicas).sum()",
        ".participation.minClients",
        "there are fewer clients than minClients; it is at most the replicas of all groups together",
    )
}

/// A resource that deletes itself must have put its adapter elsewhere.
pub(crate) fn self_deletion_needs_an_output() -> Rule {
    rule(
        "!has(self.ttlSecondsAfterFinished) || has(self.output)",
        ".ttlSecondsAfterFinished",
        "deleting the resource deletes the adapter with its volume; set output before ttlSecondsAfterFinished",
    )
}

/// An earlier run's checkpoint is in a claim that outlived it.
pub(crate) fn resuming_needs_the_claim() -> Rule {
    rule(
        "!has(self.resumeFrom) || has(self.server.checkpoint.existingClaim)",
        ".resumeFrom",
        "the checkpoint to resume from lies in a claim; set server.checkpoint.existingClaim",
    )
}
