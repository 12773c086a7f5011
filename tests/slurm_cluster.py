"""A SLURM of one node for tests: munge, slurmctld and slurmd on the loopback interface, all of it in one folder."""

import getpass
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

SBIN = f"{os.environ['PATH']}:/usr/sbin:/sbin"  # where daemons lie, which is not on every user's path
CONF = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
SlurmUser={user}
SlurmdUser={user}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
SchedulerParameters=batch_sched_delay=0,sched_interval=2
MpiDefault=none
KillWait=10
NodeName={host} NodeAddr=127.0.0.1 CPUs=4 State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


@contextmanager
def cluster(folder: Path) -> Iterator[str]:
    """Starts SLURM with its state in `folder` and yields the path of its slurm.conf; stops it at the end.

    MSMREC_SLURM_UP names a script to do that instead: `SCRIPT FOLDER` starts and prints `export SLURM_CONF=...`,
    `SCRIPT --down FOLDER` stops. Skips where there is neither the script nor SLURM.
    """
    if script := os.environ.get("MSMREC_SLURM_UP"):
        said = subprocess.run([script, folder], stdout=subprocess.PIPE, text=True, check=True, timeout=600).stdout
        try:
            yield said.rsplit("SLURM_CONF=", 1)[1].strip()
        finally:
            subprocess.run([script, "--down", folder], check=True, timeout=60)
        return
    if missing := [name for name in ("slurmctld", "slurmd", "munged", "sbatch") if not shutil.which(name, path=SBIN)]:
        pytest.skip(f"no {', '.join(missing)} here: install slurm-wlm and munge, or set MSMREC_SLURM_UP to a script")
    with socket.socket() as one, socket.socket() as two:
        one.bind(("127.0.0.1", 0))
        two.bind(("127.0.0.1", 0))
        ports = one.getsockname()[1], two.getsockname()[1]
    conf, key, host = folder / "slurm.conf", folder / "munge.key", socket.gethostname().split(".")[0]
    conf.write_text(CONF.format(folder=folder, host=host, ports=ports, user=getpass.getuser()))
    (folder / "state").mkdir()
    (folder / "spool").mkdir()
    key.write_bytes(os.urandom(1024))
    key.chmod(0o600)
    files = {"key-file": "key", "socket": "socket", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
    munge = ["munged", "--force", *(f"--{option}={folder}/munge.{end}" for option, end in files.items())]
    environment = {**os.environ, "SLURM_CONF": str(conf), "PATH": SBIN}
    try:
        for command in (munge, ["slurmctld"], ["slurmd"]):
            subprocess.run(command, env=environment, check=True, timeout=60)
        for _ in range(120):
            up = subprocess.run(["sinfo", "-h", "-o", "%T"], env=environment, capture_output=True, text=True)
            if up.stdout.strip() == "idle":
                break
            time.sleep(0.5)
        else:
            pytest.skip(f"SLURM is installed but its node did not come up: {up.stdout}{up.stderr}")
        yield str(conf)
    finally:
        for name in ("slurmd", "slurmctld", "munge"):
            if (pid := folder / f"{name}.pid").exists():
                os.kill(int(pid.read_text()), signal.SIGTERM)
