"""The machine and the process: whole files, several processes, memory, packaged models, news for who waits."""
