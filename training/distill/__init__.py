"""Distillation: one trainer frame, one file per method, pure losses.

config.py reads what is asked; examples.py and batches.py turn files into rows of tokens; models.py loads a pair that
fits; lesson.py is one method's loss on one batch; frame.py runs lessons step by step, with checkpoints and a report;
each method is a file of its own (kd.py, ranking.py, features.py, warmup.py, through_time.py).
"""
