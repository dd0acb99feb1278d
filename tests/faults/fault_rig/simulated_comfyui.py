"""A simulated ComfyUI as a process of its own: python simulated_comfyui.py PORT NAME"""

import sys

from twisted.internet import reactor

from comfyproxy.demo.server import SimulatedComfyUI

if __name__ == "__main__":
    SimulatedComfyUI(sys.argv[2], reactor, speed=20).listen(int(sys.argv[1]))  # type: ignore[arg-type]
    reactor.run()  # type: ignore[attr-defined]
