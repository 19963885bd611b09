import subprocess
import sys

IMPORTED = """
import sys
from pipeline.imports import imports, is_compiler_loaded

with imports():
    import pipeline.training.run
    import torch
    from pytorch_lightning.utilities.compile import OptimizedModule
"""


def said(code: str) -> list[str]:
    """What a new Python prints that imported the training, and then ran `code`."""
    done = subprocess.run(
        [sys.executable, "-c", IMPORTED + code], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert "leaked" not in done.stderr
    return done.stdout.split()


def test_a_training_step_needs_no_compiler() -> None:
    heavy = ("sympy", "scipy.signal", "torch._inductor", "torch._dynamo.config")
    step = f"""
network = torch.nn.Linear(2, 2)
optimizer = torch.optim.SGD(network.parameters(), 0.5)
network(torch.ones(1, 2)).sum().backward()
before = network.weight.detach().clone()
optimizer.step()
optimizer.zero_grad()
optimizer.load_state_dict(optimizer.state_dict())
print(torch.allclose(before - network.weight, torch.tensor(0.5)))
print(isinstance(network, OptimizedModule))
print(is_compiler_loaded(), [name for name in {heavy} if name in sys.modules])
"""
    assert said(step) == ["True", "False", "False", "[]"]


def test_whoever_asks_for_the_compiler_gets_it_once() -> None:
    asked = (
        "import torch._dynamo.config as found",
        "from torch._dynamo.utils import counters as found",
        "from torch._dynamo import allow_in_graph as found",
    )
    names = "('torch._dynamo.config', 'torch._dynamo.utils')"
    each = f"""
import os
for asked in {asked}:
    if not os.fork():
        exec(asked)
        same = all(getattr(torch._dynamo, n.rsplit('.')[-1]) is sys.modules[n] for n in {names})
        print(is_compiler_loaded(), same, flush=True)
        os._exit(0)
    os.wait()
"""
    assert said(each) == ["True", "True"] * len(asked)


def test_a_network_is_compiled_when_it_is_asked_for() -> None:
    compile = """
disabled = torch.compiler.disable(lambda x: x + 1)
print(disabled(1))
network = torch.compile(torch.nn.Linear(2, 2), backend="aot_eager")
optimizer = torch.optim.SGD(network.parameters(), 0.5)
network(torch.ones(1, 2)).sum().backward()
optimizer.step()
print(is_compiler_loaded(), isinstance(network, OptimizedModule), disabled(1))
import scipy.signal
print(scipy.signal.windows.hamming(1)[0])
"""
    assert said(compile) == ["2", "True", "True", "2", "1.0"]
