"""What is done with a job, one file a task. Who does it and when belongs in workers."""
