"""The variables by which the processes of an agent are known; they inherit them."""

from __future__ import annotations

__all__ = ["LAUNCHER", "TAG"]

TAG = "REGISTRY_AGENT_WORD"  # random: no other process has it
LAUNCHER = "REGISTRY_AGENT_LAUNCHER"  # the name of the launcher that started the agent
