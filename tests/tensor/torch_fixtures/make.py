"""Writes the files beside this one with torch.save: `python make.py` in this folder."""
import argparse
import collections
import os

import torch


def state():
    """Tensors of every kind; element i of each is i in row-major order, plus what is said."""
    base = torch.arange(20.0).reshape(4, 5)
    return collections.OrderedDict([
        ("f32", torch.arange(6.0).reshape(2, 3)),
        ("bf16", torch.arange(6.0, dtype=torch.bfloat16)),
        ("f16", torch.tensor([0.0, 1.0, 2.0, 65504.0, 2.0**-24, -0.5], dtype=torch.float16)),
        ("f64", torch.arange(3.0, dtype=torch.float64)),
        ("i64", torch.tensor(7)),
        ("i32", torch.arange(3, dtype=torch.int32)),
        ("bool", torch.tensor([True, False])),
        ("whole", base),
        ("rows", base[1:3]),
        ("strided", base[1:4:2, ::2]),
        ("transposed", base.t()),
        ("expanded", torch.tensor([5.0]).expand(2, 3)),
        ("empty", torch.zeros(0, 3)),
        ("parameter", torch.nn.Parameter(torch.arange(2.0))),
    ])


class Command:
    def __reduce__(self):
        return os.system, ("touch /tmp/hostile",)


def davit_names():
    """Names of the authors' DaViT and shapes, in the order of timm's, for stages of 1 + 1 pairs."""
    dims = [4, 8]
    for s, c in enumerate(dims):
        k, previous = (7, 3) if s == 0 else (2, dims[s - 1])
        conv = [(f"patch_embeds.{s}.proj.weight", (c, previous, k, k)),
                (f"patch_embeds.{s}.proj.bias", (c,))]
        width = c if s == 0 else previous
        norm = [(f"patch_embeds.{s}.norm.weight", (width,)), (f"patch_embeds.{s}.norm.bias", (width,))]
        yield from conv + norm if s == 0 else norm + conv
        for j in range(2):
            block = f"main_blocks.{s}.0.{j}."
            for name, shape in [("cpe.0.proj", (c, 1, 3, 3)), ("norm1", (c,)), ("attn.qkv", (3 * c, c)),
                                ("attn.proj", (c, c)), ("cpe.1.proj", (c, 1, 3, 3)), ("norm2", (c,)),
                                ("mlp.fc1", (4 * c, c)), ("mlp.fc2", (c, 4 * c))]:
                yield block + name + ".weight", shape
                yield block + name + ".bias", shape[:1]
    for name, shape in [("norms", (8,)), ("head", (3, 8))]:
        yield name + ".weight", shape
        yield name + ".bias", shape[:1]


def main():
    tensors = state()
    args = argparse.Namespace(model="m", lr=0.1, betas=[0.9, 0.999])
    torch.save({"model": tensors, "optimizer": {"state": {0: {"step": 3}}, "param_groups": [{"lr": 0.1}]},
                "epoch": 299, "args": args, "best": 81.25, "none": None}, "state.pth")
    torch.save(tensors, "legacy.pth", _use_new_zipfile_serialization=False)
    torch.save(tensors, "protocol4.pth", pickle_protocol=4)
    linear = torch.nn.DataParallel(torch.nn.Linear(2, 1))
    with torch.no_grad():
        linear.module.weight.copy_(torch.arange(2.0).reshape(1, 2))
        linear.module.bias.fill_(9)
    torch.save(linear.state_dict(), "module_prefix.pth")
    averaged = {name: value + 1 for name, value in linear.state_dict().items()}
    torch.save({"state_dict": linear.state_dict(), "state_dict_ema": averaged}, "ema.pth")
    torch.save({"model": tensors, "x": Command()}, "hostile.pth")
    torch.save(torch.nn.Linear(2, 1), "whole_module.pth")
    torch.jit.script(torch.nn.Linear(2, 1)).save("script.pt")
    # Element i of tensor number n is n + i / 1024; all of them are views of one storage.
    names = list(davit_names())
    flat = torch.cat([n + torch.arange(float(torch.Size(shape).numel())) / 1024
                      for n, (_, shape) in enumerate(names)])
    views = flat.split([torch.Size(shape).numel() for _, shape in names])
    davit = {name: view.reshape(shape) for (name, shape), view in zip(names, views)}
    torch.save({"state_dict": davit}, "davit.pth")


if __name__ == "__main__":
    main()
