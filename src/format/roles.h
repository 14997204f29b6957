/* roles.h - what a tensor's name says it is: one table per container, nothing guessed.
 *
 * A name is cut into a known prefix, a layer, a part of the layer and a suffix, each looked up in a
 * list; no substring search. A name that is in no list is BW_ROLE_UNKNOWN and somebody must say so.
 * No state, any thread. */
#ifndef BW_FORMAT_ROLES_H
#define BW_FORMAT_ROLES_H

#include "format/checkpoint.h"

typedef enum bw_role {
    BW_ROLE_UNKNOWN,
    /* of the model */
    BW_ROLE_EMBED, BW_ROLE_HEAD, BW_ROLE_FINAL_NORM,
    BW_ROLE_MTP_FC, BW_ROLE_MTP_NORM_EMBEDDING, BW_ROLE_MTP_NORM_HIDDEN, BW_ROLE_MTP_NORM,
    BW_ROLE_MTP_EMBED, BW_ROLE_MTP_HEAD, /* the draft head's own: not in this family so far */
    /* of a layer */
    BW_ROLE_INPUT_NORM, BW_ROLE_POST_NORM,
    BW_ROLE_Q, BW_ROLE_K, BW_ROLE_V, BW_ROLE_O, BW_ROLE_Q_NORM, BW_ROLE_K_NORM,
    BW_ROLE_QKV, /* GGUF attn_qkv: of a linear layer, or q, k, v of full attention fused */
    BW_ROLE_GDN_Z, BW_ROLE_GDN_A, BW_ROLE_GDN_B, BW_ROLE_GDN_OUT,
    BW_ROLE_GDN_CONV, BW_ROLE_GDN_DECAY, BW_ROLE_GDN_DT, BW_ROLE_GDN_NORM,
    BW_ROLE_FFN_GATE, BW_ROLE_FFN_UP, BW_ROLE_FFN_DOWN,
    BW_ROLE_ROUTER, BW_ROLE_SHARED_GATE, /* the scalar gate of the shared expert */
    BW_ROLE_SHARED_FFN_GATE, BW_ROLE_SHARED_FFN_UP, BW_ROLE_SHARED_FFN_DOWN,
    BW_ROLE_EXPERTS_GATE, BW_ROLE_EXPERTS_UP, BW_ROLE_EXPERTS_DOWN, /* all experts, or one: place.expert */
    BW_ROLE_EXPERTS_GATE_UP,
    /* beside the text model */
    BW_ROLE_VISION,
    BW_ROLE_IGNORED, /* known and of no use here: activation and cache scales, rotary tables */
    BW_ROLE_COUNT,
    BW_ROLE_FIRST_OF_LAYER = BW_ROLE_INPUT_NORM,
    BW_ROLE_LAST_OF_LAYER = BW_ROLE_EXPERTS_GATE_UP
} bw_role;

typedef struct bw_place {
    bw_role role;
    int layer;        /* of layer roles; within the MTP head if mtp */
    int expert;       /* -1: the tensor holds all of them */
    bool mtp;         /* by its name part of the MTP head, known or not */
    const char *part; /* "": the values themselves; else what a packed layout calls this piece: "qweight" */
} bw_place;

/* GGUF numbers the MTP block like a layer; the caller knows from where on (place.layer, mtp false). */
bw_place bw_role_of(bw_container container, const char *name);

/* "layers.3 self_attn.q_proj" in the container's own words, for a tensor that is missing. */
const char *bw_role_name(char *text, size_t size, bw_container container, bw_role role, int layer, bool mtp);

#endif
