"""ClipCap for tests: its classes written plainly, after its code, and tiny parts in transformers' folders."""

import json

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import nn

FEATURES, WIDTH, PREFIX, SIZE = 12, 16, 3, 32
SPECIAL = ["<pad>", "<s>", "</s>", "<unk>", "<mask>"]
SENTENCES = [
    "Собака бежит по траве. Что делает собака?",
    "Рыжая кошка спит на диване, рядом лежит мяч.\nГде кошка?",
    "Вопрос: Кто на фото? Ответ: человек!",
]


class MLP(nn.Module):
    def __init__(self, sizes):
        super().__init__()
        layers = []
        for i in range(len(sizes) - 1):
            layers.append(nn.Linear(sizes[i], sizes[i + 1]))
            if i < len(sizes) - 2:
                layers.append(nn.Tanh())
        self.model = nn.Sequential(*layers)

    def forward(self, x):
        return self.model(x)


class MultiHeadAttention(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.to_queries = nn.Linear(width, width, bias=False)
        self.to_keys_values = nn.Linear(width, width * 2, bias=False)
        self.project = nn.Linear(width, width)

    def forward(self, x):
        b, n, c = x.shape
        queries = self.to_queries(x).reshape(b, n, self.heads, c // self.heads)
        keys_values = self.to_keys_values(x).reshape(b, n, 2, self.heads, c // self.heads)
        keys, values = keys_values[:, :, 0], keys_values[:, :, 1]
        attention = torch.einsum("bnhd,bmhd->bnmh", queries, keys) * (c // self.heads) ** -0.5
        out = torch.einsum("bnmh,bmhd->bnhd", attention.softmax(dim=2), values).reshape(b, n, c)
        return self.project(out)


class Layer(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attn = MultiHeadAttention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Module()
        self.mlp.fc1 = nn.Linear(width, width * 2)
        self.mlp.fc2 = nn.Linear(width * 2, width)

    def forward(self, x):
        x = x + self.attn(self.norm1(x))
        return x + self.mlp.fc2(torch.relu(self.mlp.fc1(self.norm2(x))))


class TransformerMapper(nn.Module):
    def __init__(self, features, width, prefix_length, clip_length, layers):
        super().__init__()
        self.clip_length = clip_length
        self.transformer = nn.Module()
        self.transformer.layers = nn.ModuleList([Layer(width, 8) for _ in range(layers)])
        self.linear = nn.Linear(features, clip_length * width)
        self.prefix_const = nn.Parameter(torch.randn(prefix_length, width))

    def forward(self, x):
        x = self.linear(x).view(x.shape[0], self.clip_length, -1)
        prefix = self.prefix_const.unsqueeze(0).expand(x.shape[0], *self.prefix_const.shape)
        x = torch.cat((x, prefix), dim=1)
        for layer in self.transformer.layers:
            x = layer(x)
        return x[:, self.clip_length :]


class ClipCaption(nn.Module):
    """The captioner: `gpt` and `clip_project`, as in the published checkpoints."""

    def __init__(self, gpt, kind, prefix_length=PREFIX, features=FEATURES):
        super().__init__()
        self.gpt, self.prefix_length, width = gpt, prefix_length, gpt.config.hidden_size
        if kind == "mlp":
            flat = prefix_length * width
            self.clip_project = MLP((features, flat // 2, flat))
        elif kind == "linear":
            self.clip_project = nn.Linear(features, prefix_length * width)
        else:
            self.clip_project = TransformerMapper(features, width, prefix_length, clip_length=2, layers=2)

    def prefix(self, embedding):
        return self.clip_project(embedding).view(-1, self.prefix_length, self.gpt.config.hidden_size)


@torch.no_grad()
def original_loop(gpt, prefix, stop_token, entry_length=67, top_p=0.8, temperature=1.0):
    """ClipCap's `generate2` for one prefix [1, length, width]: no cache, the vocabulary sorted at every step."""
    generated, tokens = prefix, None
    for _ in range(entry_length):
        logits = gpt(inputs_embeds=generated).logits
        logits = logits[:, -1, :] / temperature
        sorted_logits, sorted_indices = torch.sort(logits, descending=True)
        cumulative_probs = torch.cumsum(torch.softmax(sorted_logits, dim=-1), dim=-1)
        sorted_indices_to_remove = cumulative_probs > top_p
        sorted_indices_to_remove[..., 1:] = sorted_indices_to_remove[..., :-1].clone()
        sorted_indices_to_remove[..., 0] = 0
        logits[:, sorted_indices[sorted_indices_to_remove]] = -float("inf")
        next_token = torch.argmax(logits, -1).unsqueeze(0)
        next_token_embed = gpt.transformer.wte(next_token)
        tokens = next_token if tokens is None else torch.cat((tokens, next_token), dim=1)
        generated = torch.cat((generated, next_token_embed), dim=1)
        if next_token.item() == stop_token:
            break
    return tokens[0].tolist()


def byte_tokenizer():
    """GPT-2's kind of tokenizer, with ruGPT-3's special tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=340, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(SENTENCES * 5, trainer)
    return tokenizer


def write_language_model(path, old_tokenizer=False, weights=False, width=WIDTH, **changes):
    """A GPT-2 in transformers' folder; returns the model."""
    tokenizer = byte_tokenizer()
    path.mkdir(parents=True)
    settings = {
        "vocab_size": tokenizer.get_vocab_size() + 3,  # ruGPT-3's has room to spare, too
        "n_embd": width,
        "n_layer": 2,
        "n_head": 2,
        "n_positions": 96,
        "initializer_range": 0.3,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
    }
    gpt = transformers.GPT2LMHeadModel(transformers.GPT2Config(**settings | changes)).eval()
    if weights:
        gpt.save_pretrained(path)
    else:
        gpt.config.save_pretrained(path)
    if old_tokenizer:
        tokenizer.model.save(str(path))
        names = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
        (path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "GPT2Tokenizer", **names}))
    else:
        tokenizer.save(str(path / "tokenizer.json"))
    return gpt


def write_vision(path, whole=True):
    """A CLIP (or its vision half) in transformers' folder, with its image processor; returns the vision half."""
    vision = transformers.CLIPVisionConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=SIZE,
        patch_size=16, projection_dim=FEATURES, initializer_range=0.3,
    )  # fmt: skip
    path.mkdir(parents=True)
    if whole:
        text = {
            "vocab_size": 40, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1,
            "num_attention_heads": 2, "max_position_embeddings": 12, "bos_token_id": 1, "eos_token_id": 2,
        }  # fmt: skip
        config = transformers.CLIPConfig(text_config=text, vision_config=vision.to_dict(), projection_dim=FEATURES)
        transformers.CLIPModel(config).save_pretrained(path)
    else:
        transformers.CLIPVisionModelWithProjection(vision).save_pretrained(path)
    write_preprocessor(path)
    return transformers.CLIPVisionModelWithProjection.from_pretrained(path).eval()


def write_preprocessor(path, **changes):
    """CLIP's own, for the tiny size."""
    processor = transformers.CLIPImageProcessor(size={"shortest_edge": SIZE}, crop_size=SIZE)
    processor.save_pretrained(path)
    file = path / "preprocessor_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def write_checkpoint(path, gpt, kind="mlp", old_buffers=False, change=None, **sizes):
    """A checkpoint as ClipCap saves it; returns the captioner. `change` gets the state dict to spoil."""
    captioner = ClipCaption(gpt, kind, **sizes).eval()
    for parameter in captioner.clip_project.parameters():
        parameter.data.mul_(3.0)  # so that photos differ in what is written
    state = {name: tensor.clone() for name, tensor in captioner.state_dict().items()}
    if old_buffers:
        for layer in range(gpt.config.n_layer):
            state[f"gpt.transformer.h.{layer}.attn.bias"] = torch.ones(1, 1, 96, 96, dtype=torch.bool)
            state[f"gpt.transformer.h.{layer}.attn.masked_bias"] = torch.tensor(-1e4)
    if change:
        change(state)
    torch.save(state, path)
    return captioner
