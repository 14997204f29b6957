/* Names are looked up whole: known prefix, layer, part, suffix; nothing is guessed. */
#include "lib/check.h"

#include "format/roles.h"

static void check_place(bw_container container, const char *name, bw_role role, int layer, int expert, bool mtp, const char *part)
{
    const bw_place p = bw_role_of(container, name);
    check_that(p.role == role && p.layer == layer && p.expert == expert && p.mtp == mtp && strcmp(p.part, part) == 0,
               "%s: role %d layer %d expert %d mtp %d part %s", name, (int)p.role, p.layer, p.expert, p.mtp, p.part);
}

TEST(names_of_a_folder_are_cut_at_their_joints)
{
    static const bw_container hf = BW_CONTAINER_HF;
    check_place(hf, "model.language_model.layers.63.self_attn.q_proj.weight", BW_ROLE_Q, 63, -1, false, "");
    check_place(hf, "model.layers.0.linear_attn.A_log", BW_ROLE_GDN_DECAY, 0, -1, false, "");
    check_place(hf, "language_model.model.layers.7.mlp.switch_mlp.up_proj.weight", BW_ROLE_EXPERTS_UP, 7, -1, false, "");
    check_place(hf, "language_model.layers.7.mlp.experts.255.down_proj.weight", BW_ROLE_EXPERTS_DOWN, 7, 255, false, "");
    check_place(hf, "model.language_model.layers.7.mlp.experts.gate_up_proj", BW_ROLE_EXPERTS_GATE_UP, 7, -1, false, "");
    check_place(hf, "model.language_model.layers.1.mlp.gate_proj.qweight", BW_ROLE_FFN_GATE, 1, -1, false, "qweight");
    check_place(hf, "model.language_model.layers.1.mlp.gate.weight", BW_ROLE_ROUTER, 1, -1, false, "");
    check_place(hf, "mtp.fc.weight_packed", BW_ROLE_MTP_FC, 0, -1, true, "weight_packed");
    check_place(hf, "model.mtp.norm.weight", BW_ROLE_MTP_NORM, 0, -1, true, "");
    check_place(hf, "mtp.layers.0.mlp.experts.3.gate_proj.weight_scale_inv", BW_ROLE_EXPERTS_GATE, 0, 3, true, "weight_scale_inv");
    check_place(hf, "language_model.lm_head.weight", BW_ROLE_HEAD, 0, -1, false, "");
    check_place(hf, "model.visual.blocks.0.attn.qkv.weight", BW_ROLE_VISION, 0, -1, false, "");
    check_place(hf, "vision_tower.blocks.0.norm1.bias", BW_ROLE_VISION, 0, -1, false, "");
    check_place(hf, "model.language_model.layers.3.self_attn.k_proj.k_scale", BW_ROLE_IGNORED, 3, -1, false, "");
    check_place(hf, "model.rotary_emb.inv_freq", BW_ROLE_IGNORED, 0, -1, false, "");
}

TEST(names_of_a_gguf_file_are_looked_up_whole)
{
    static const bw_container gguf = BW_CONTAINER_GGUF;
    check_place(gguf, "blk.64.nextn.eh_proj.weight", BW_ROLE_MTP_FC, 64, -1, true, "");
    check_place(gguf, "blk.64.attn_q.weight", BW_ROLE_Q, 64, -1, false, "");
    check_place(gguf, "blk.0.ssm_a", BW_ROLE_GDN_DECAY, 0, -1, false, "");
    check_place(gguf, "blk.0.ssm_dt.bias", BW_ROLE_GDN_DT, 0, -1, false, "");
    check_place(gguf, "blk.3.ffn_gate_up_exps.weight", BW_ROLE_EXPERTS_GATE_UP, 3, -1, false, "");
    check_place(gguf, "output_extra.weight", BW_ROLE_IGNORED, 0, -1, false, "");
    check_place(gguf, "v.patch_embd.weight.1", BW_ROLE_VISION, 0, -1, false, "");
}

TEST(what_only_resembles_a_known_name_is_unknown)
{
    static const char *const hf[] = {
        "xmodel.layers.0.self_attn.q_proj.weight", "model.layers.0.self_attn.q_proj.weights", "model.layers.01.self_attn.q_proj.weight",
        "model.layers.99999999.self_attn.q_proj.weight", "model.layers.-1.self_attn.q_proj.weight", "model.layers.self_attn.q_proj.weight",
        "model.layers.0.mlp.experts.1.gate_up_proj", "model.layers.0.mlp.experts.1.x.up_proj.weight", "model.layers.0.", "model.", "", ".", "mtp",
        "model.model.layers.0.self_attn.q_proj.weight", "layers.0.self_attn.q_proj.my.weight", "weight", "lm_head.my_visual.weight",
    };
    static const char *const gguf[] = {
        "blk.0.attn_q", "blk.0.attn_q.weight.scale", "blk.a.attn_q.weight", "blk.00.attn_q.weight", "token_embd", "xblk.0.attn_q.weight", "",
        "blk.0.nextn.sideways.weight", "rope_freqs.weight",
    };
    for (size_t i = 0; i < BW_COUNT(hf); i++)
        check_that(bw_role_of(BW_CONTAINER_HF, hf[i]).role == BW_ROLE_UNKNOWN, "%s has a role", hf[i]);
    for (size_t i = 0; i < BW_COUNT(gguf); i++)
        check_that(bw_role_of(BW_CONTAINER_GGUF, gguf[i]).role == BW_ROLE_UNKNOWN, "%s has a role", gguf[i]);
    check(bw_role_of(BW_CONTAINER_GGUF, "blk.0.nextn.sideways.weight").mtp && bw_role_of(BW_CONTAINER_HF, "mtp.sideways.weight").mtp);
}

TEST(every_role_is_called_by_a_name_that_leads_back_to_it)
{
    for (int role = BW_ROLE_EMBED; role <= BW_ROLE_LAST_OF_LAYER; role++)
        for (int container = 0; container < 2; container++) {
            char name[160];
            bw_role_name(name, sizeof name, (bw_container)container, (bw_role)role, 5, false);
            check_that(bw_role_of((bw_container)container, name).role == (bw_role)role, "%s is not role %d", name, role);
        }
}

TESTS_MAIN(ENTRY(names_of_a_folder_are_cut_at_their_joints), ENTRY(names_of_a_gguf_file_are_looked_up_whole),
           ENTRY(what_only_resembles_a_known_name_is_unknown), ENTRY(every_role_is_called_by_a_name_that_leads_back_to_it))
