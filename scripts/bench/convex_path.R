# Times glmnet for scripts/bench/convex_path.py, which calls this.
#
#   Rscript convex_path.R FOLDER
#
# FOLDER holds X.bin, y.bin, lambda.bin (float64, columns first) and task.txt: n, p,
# family, alpha, type.multinomial, folds (0: a path), threshs. Written: for every thresh
# seconds (median of 3) and, of a path, the coefficients.

suppressPackageStartupMessages(library(glmnet))
folder <- commandArgs(trailingOnly = TRUE)
task <- readLines(file.path(folder, "task.txt"))
n <- as.integer(task[1]); p <- as.integer(task[2])
family <- task[3]; alpha <- as.numeric(task[4]); type <- task[5]
folds <- as.integer(task[6]); threshs <- as.numeric(strsplit(task[7], " ")[[1]])

doubles <- function(name, count) readBin(file.path(folder, name), "double", count)
x <- matrix(doubles("X.bin", n * p), n, p)
y <- doubles("y.bin", n)
lambda <- doubles("lambda.bin", 1e6)
foldid <- if (folds > 0) (seq_len(n) - 1) %% folds + 1

for (i in seq_along(threshs)) {
  run <- function() {
    given <- list(x = x, y = y, family = family, alpha = alpha, lambda = lambda,
      standardize = FALSE, thresh = threshs[i], maxit = 1e8)
    if (family == "multinomial") given$type.multinomial <- type
    if (folds > 0) do.call(cv.glmnet, c(given, list(foldid = foldid))) else
      do.call(glmnet, given)
  }
  seconds <- numeric(3)
  for (round in 1:3) seconds[round] <- system.time(fit <- run())[["elapsed"]]
  if (folds > 0) fit <- fit$glmnet.fit
  beta <- if (is.list(fit$beta)) fit$beta else list(fit$beta)
  a0 <- if (is.matrix(fit$a0)) fit$a0 else matrix(fit$a0, 1)
  out <- file(file.path(folder, paste0("fit", i, ".bin")), "wb")
  writeBin(c(median(seconds), as.numeric(length(fit$lambda))), out)
  writeBin(as.numeric(a0), out)
  for (b in beta) writeBin(as.numeric(as.matrix(b)), out)
  close(out)
}
