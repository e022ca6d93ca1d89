"""Training in SLURM jobs, through submitit and a file system that all nodes share.

In come jobs, out come events. A job and its driver exchange messages through files in the job's folder.
"""
