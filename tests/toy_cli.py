"""`rucap` over the toy engine, in a process of its own: python toy_cli.py caption --model FOLDER PHOTO."""

import os
import time

import rucap.captioner
from toy_model import ToyEngine


class SlowEngine(ToyEngine):
    def encode(self, pixels):
        time.sleep(float(os.environ.get("TOY_SECONDS", "0")))
        return super().encode(pixels)


def use_toy_engine(set_attribute=setattr):
    def load(folder, *_, **__):
        return SlowEngine(folder.config.language_model.vocabulary)

    set_attribute(rucap.captioner, "load_engine", load)


if __name__ == "__main__":
    from rucap.cli import main

    use_toy_engine()
    main()
