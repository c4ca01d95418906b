"""The examination of a judge: what its verdicts hang on besides the answers' worth."""
