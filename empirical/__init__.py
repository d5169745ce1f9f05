"""What is measured: networks of growing width, steps of any rule, exponents with intervals.

measure.py is the way in, verify.py the way to a verdict. In the order of reading:

    a rule in numbers   numbers values algebra; what a layer holds: layer samples capture basis
                        spectral rotation rotated sample_moments ascent state
    training by it      optimizers update; networks; many at once: stacked
    one measurement     measure trial training dense sizes calibration machine parametrize once;
                        any width, exact in law: wide; the limit itself: limits
    over widths         campaign widths store cluster; data image_files array_file text
    a verdict           fit verdict crossover verify nodes alignments; report plots
    longer runs         sweep transfer
    a user's model      coordinates model_trial
    the paper           claims
"""
