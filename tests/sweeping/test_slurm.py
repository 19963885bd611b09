import pytest
from hydra import compose, initialize_config_dir

from pipeline.composition import register
from pipeline.paths import CONF

pytest.importorskip("submitit", reason="pip install '.[slurm]'")


def test_the_preset_asks_slurm_for_a_task_and_a_gpu_a_device() -> None:
    register()
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
        composed = compose(
            "config",
            ["hydra/launcher=slurm", "trainer.devices=4", "hydra.launcher.partition=gpu"],
            return_hydra_config=True,
        )
    launcher = composed.hydra.launcher
    assert launcher._target_.endswith("SlurmLauncher")
    assert launcher.tasks_per_node == launcher.gpus_per_node == 4
    assert launcher.partition == "gpu"
    assert launcher.max_num_timeout > 0
