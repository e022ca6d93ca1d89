"""Training in SLURM jobs, through submitit and a file system that all nodes share.

In come jobs, out come events; what a job and its driver say to each other stands in files of the job's folder.
"""
